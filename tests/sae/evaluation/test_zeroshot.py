from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sae.clip.class_vectors import class_vectors, fill_template
from sae.core.errors import UserError
from sae.core.files import sha256_hex
from sae.data.classes.names import class_name, class_names
from sae.data.store import EmbeddingStore
from sae.evaluation import evaluate
from sae.evaluation import zeroshot as room
from sae.evaluation.config import EvalConfig
from sae.evaluation.report import EvalReport
from sae.evaluation.zeroshot import (
    ZeroShot,
    openai_templates,
    template_sets,
    zeroshot,
)
from sae.model.intervene import error_kept
from sae.model.sae import SAE, SAEConfig
from tests.support.sae.stores import write_store

COLOURS = {"deep_red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourClip:
    """An image's embedding is its mean colour, a text's is the colour that it names (or, after
    "not", the others). Block 0 has the same tokens as "projected", and may be edited on the way.
    """

    name = "fake"
    sha = "0" * 16
    adapter_sha = ""
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.texts: list[str] = []

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    def image_features(
        self,
        pixels: Tensor,
        layer: str = "projected",
        tokens: str = "cls",
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        x = pixels.mean((2, 3))[:, None]  # (b, 1, 3)
        if edit is not None:
            assert (layer, tokens) == ("0", "cls")
            x = edit(x)
        return F.normalize(x[:, 0], dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        order = ["red", "green", "blue"]
        named = [[(c in text) != text.startswith("not") for c in order] for text in texts]
        return F.normalize(torch.tensor(named, dtype=torch.float32), dim=1)


def draw(
    folder: Path, spec: Sequence[tuple[str, str, tuple[int, int, int]]], layer: str = "projected"
) -> EmbeddingStore:
    """A store of one-colour images (domain, label, colour) on disk; brightness keeps them apart."""
    paths, ids = [], []
    for number, (domain, label, colour) in enumerate(spec):
        path = folder / domain / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = tuple(round(value * (1 - number / 100)) for value in colour)
        Image.new("RGB", (4, 4), shade).save(path)
        paths.append(path.relative_to(folder / domain).as_posix())
        ids.append(sha256_hex(path.read_bytes()))
    x = [(1 - number / 100) / 255 * torch.tensor(shade) for number, (*_, shade) in enumerate(spec)]
    return write_store(
        folder / "store",
        torch.stack(x)[:, None],
        layer=layer,
        domains=[domain for domain, _, _ in spec],
        labels=[label for _, label, _ in spec],
        paths=paths,
        ids=ids,
    )


SPEC = [
    ("sketch", "deep_red", COLOURS["deep_red"]),
    ("sketch", "green", COLOURS["green"]),
    ("sketch", "blue", COLOURS["green"]),
    ("sketch", "", COLOURS["blue"]),
    ("photo", "deep-red", COLOURS["deep_red"]),
    ("photo", "blue", COLOURS["blue"]),
]


@pytest.fixture(params=["projected", "0"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> EmbeddingStore:
    """Sketches: four, one of them in the wrong folder, one in none. Photos: two."""
    return draw(tmp_path, SPEC, request.param)


def sae_to(column: int | None) -> SAE:
    """An SAE that gives back what it gets, or always the colour `column`."""
    model = SAE(SAEConfig(d=3, n_latents=3, k=3))
    with torch.no_grad():
        if column is None:
            model.W_enc.copy_(torch.eye(3))
            model.W_dec.copy_(torch.eye(3))
        else:
            model.b_dec[column] = 1
    return model


def run(model: SAE, store: EmbeddingStore, **more: int) -> dict[str, ZeroShot]:
    clip: Any = ColourClip()
    return zeroshot(model, store, clip, np.arange(6), **more)["1"]  # type: ignore[arg-type]


def test_folder_names_become_words() -> None:
    assert class_name("ice_cream-van") == "ice cream van"
    assert class_names(["b", "", "a_b", "a-b", "b"]) == ["a b", "b"]


@pytest.mark.parametrize(
    ("template", "name", "text"),
    [
        ("a photo of a {}", "cat", "a photo of a cat"),
        ("a photo of a {}", "apple", "a photo of an apple"),
        ("A {}, on a table", "umbrella", "An umbrella, on a table"),
        ("a {}", "unicorn", "a unicorn"),
        ("a {}", "hourglass", "an hourglass"),
        ("a {}", "European bison", "a European bison"),
        ("the {}", "apple", "the apple"),
    ],
)
def test_templates_take_the_right_article(template: str, name: str, text: str) -> None:
    assert fill_template(template, name) == text


def test_a_template_without_a_place_for_the_name_is_refused() -> None:
    with pytest.raises(UserError, match=re.escape("'a photo' must hold {} once")):
        fill_template("a photo", "cat")


def test_a_class_is_the_unit_mean_over_its_templates() -> None:
    clip = ColourClip()
    vectors = class_vectors(clip, ["red", "green"], ["a {}", "a {} on blue"])  # type: ignore[arg-type]
    assert clip.texts == ["a red", "a red on blue", "a green", "a green on blue"]
    r = torch.tensor([1 + 0.5**0.5, 0.5**0.5])
    r = r / r.norm()
    torch.testing.assert_close(vectors, torch.tensor([[r[0], 0, r[1]], [0, r[0], r[1]]]))


def test_a_faithful_sae_classifies_like_the_raw_embedding(store: EmbeddingStore) -> None:
    results = run(sae_to(None), store)
    assert {domain: astuple(result)[:7] for domain, result in results.items()} == {
        "": (5, 3, 0.8, 1.0, 0.8, 1.0, 0.8),
        "sketch": (3, 3, 2 / 3, 1.0, 2 / 3, 1.0, 2 / 3),
        "photo": (2, 3, 1.0, 1.0, 1.0, 1.0, 1.0),
    }
    assert results[""].delta_top1 == 0
    # Five images on which nothing is lost are no proof that nothing is.
    assert results[""].delta_low < -0.1 < 0.1 < results[""].delta_high


def test_an_sae_that_always_says_green_is_right_on_green_only(store: EmbeddingStore) -> None:
    results = run(sae_to(1), store)
    assert results["sketch"].raw_top1 == pytest.approx(2 / 3)
    assert results["sketch"].sae_top1 == pytest.approx(1 / 3)
    whole = results[""]
    assert (whole.raw_top1, whole.sae_top1) == (0.8, 0.2)
    assert whole.delta_top1 == pytest.approx(-0.6)
    assert whole.delta_high < 0.001


def test_where_the_raw_embedding_is_not_above_chance_there_is_no_delta(
    store: EmbeddingStore,
) -> None:
    results = run(sae_to(1), store)
    # 4 of 5 are right with 3 classes: p = .045. Two of 2: p = .11, which chance gives often enough.
    assert [math.isnan(results[d].delta_top1) for d in ("", "sketch", "photo")] == [0, 1, 1]
    assert math.isnan(results["photo"].delta_low)
    assert math.isnan(results["photo"].delta_high)


def test_the_report_says_where_zero_shot_is_chance_and_leaves_the_sae_out(
    store: EmbeddingStore,
) -> None:
    fit = evaluate.evaluate(sae_to(None), store, np.arange(6)).overall
    at_chance = replace(run(sae_to(1), store)[""], raw_top1=0.2, delta_top1=math.nan)
    report = EvalReport(fit, {}, zeroshot={"1": {"": at_chance}})
    assert [line.split(",")[0] for line in report.remarks()] == [
        "zeroshot: 20.0% of 5 images are named right without the SAE"
    ]
    shown = [row[0] for row in report.table()[0] if row[0].startswith("zeroshot")]
    names = ("n_images", "n_classes", "raw_top1", "raw_top5")
    assert shown == [f"zeroshot_{name}" for name in names]
    assert report.flat()["zeroshot_delta_top1"] is None
    better = EvalReport(fit, {}, zeroshot={"1": {"": replace(at_chance, delta_top1=0.0)}})
    assert better.remarks() == []
    assert "zeroshot_delta_top1" in [row[0] for row in better.table()[0]]


def test_a_store_of_wordnet_folders_is_asked_about_in_words() -> None:
    assert class_names(["n01440764", "n01443537", "n00000001"]) == [
        "goldfish",
        "n00000001",
        "tench",
    ]


def test_with_the_sae_and_its_error_every_image_is_classified_as_without(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shades = torch.randint(0, 256, (60, 3), generator=generator).tolist()
    spec = [("photo", ["red", "green", "blue"][n % 3], tuple(s)) for n, s in enumerate(shades)]
    model = SAE(SAEConfig(d=3, n_latents=8, k=2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    for layer in ("projected", "0"):
        store = draw(tmp_path / layer, spec, layer)
        result = zeroshot(model, store, ColourClip(), np.arange(60))["1"][""]  # type: ignore[arg-type]
        assert result.kept_top1 == result.raw_top1 != result.sae_top1


def test_without_a_change_the_kept_error_gives_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    model = SAE(SAEConfig(d=64, n_latents=256, k=8))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    x = 10 * torch.randn(500, 64, generator=generator)
    assert torch.equal(error_kept(model, x, lambda codes: codes), x)
    kept = error_kept(model, x, lambda codes: codes._replace(acts=codes.acts * 2))
    codes = model.encode(x)
    added = (codes.dense(256) @ model.W_dec) * model.scale
    torch.testing.assert_close(kept, x + added, rtol=1e-4, atol=1e-3)


def test_the_80_templates_are_those_of_clip() -> None:
    texts = openai_templates()
    assert len(set(texts)) == 80
    assert texts[0] == "a bad photo of a {}."
    assert {fill_template(text, "ox").count("ox") for text in texts} == {1}


def test_several_sets_of_templates_are_tried_on_the_same_images(store: EmbeddingStore) -> None:
    clip = ColourClip()
    sets = {"1": ("a {}",), "not": ("not {}",)}
    results = zeroshot(sae_to(None), store, clip, np.arange(6), sets)  # type: ignore[arg-type]
    assert list(results) == ["1", "not"]
    assert results["1"] == run(sae_to(None), store)
    assert results["not"][""].raw_top1 < 0.8
    assert results["not"][""].n_images == 5


def test_sketches_are_also_classified_as_sketches_and_with_templates_of_the_user_s(
    store: EmbeddingStore,
) -> None:
    own = ("not {}", "a {}")
    sets = template_sets(["photo", "ImageNet-Sketch"], 80, own)
    assert list(sets) == ["1", "80", "sketch", "own"]
    assert (sets["sketch"], sets["own"]) == (("a sketch of a {}",), own)
    assert list(template_sets(["photo"])) == ["1"]
    clip = ColourClip()
    sets = {"1": ("a {}",), "sketch": ("not {}",), "own": ("not {}",)}
    results = zeroshot(sae_to(None), store, clip, np.arange(6), sets)  # type: ignore[arg-type]
    assert list(results["sketch"]) == ["sketch"]
    assert results["sketch"]["sketch"] == results["own"]["sketch"] != results["1"]["sketch"]
    assert set(results["own"]) == set(results["1"]) == {"", "sketch", "photo"}


@pytest.mark.parametrize(
    ("texts", "said"), [(["a cup"], "'a cup'"), (["a {}", "{} {}"], "'{} {}'")]
)
def test_a_template_without_a_place_for_the_class_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"the template {said} must hold {{}} once")):
        template_sets(["photo"], 1, texts)


def test_top_5_counts_the_first_five() -> None:
    classes = torch.eye(7)
    features = torch.tensor([[0.1, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]]).repeat(3, 1)
    hits = room._top(features, classes, torch.tensor([1, 5, 6]))
    assert hits.tolist() == [[True, True], [False, True], [False, False]]


def test_the_images_taken_are_few_and_do_not_depend_on_their_order(tmp_path: Path) -> None:
    spec = [("sketch", "green" if number % 2 else "blue", (0, 200, 0)) for number in range(12)]
    store = draw(tmp_path, spec)
    chosen = room._choose(store, np.arange(12), 5)
    ids = store.images["image_id"]
    assert sorted(ids[chosen]) == sorted(ids)[:5]
    assert chosen.tolist() == sorted(chosen)
    assert len(room._choose(store, np.arange(3), 5)) == 3


def test_the_results_do_not_depend_on_the_batches(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(sae_to(1), store)
    monkeypatch.setattr(room, "BATCH_IMAGES", 2)
    assert run(sae_to(1), store) == whole


def test_fewer_than_two_classes_give_nothing(tmp_path: Path) -> None:
    store = draw(tmp_path, [("sketch", "green", (0, 9, 0)), ("sketch", "", (9, 0, 0))])
    assert zeroshot(sae_to(None), store, ColourClip(), np.arange(2)) == {}  # type: ignore[arg-type]


def test_at_the_last_layer_no_image_is_read(tmp_path: Path) -> None:
    store = draw(tmp_path, SPEC)
    before = run(sae_to(1), store)
    for row in range(6):
        store.image_path(row).unlink()
    assert run(sae_to(1), store) == before


def test_an_image_that_changed_or_is_gone_is_named(tmp_path: Path) -> None:
    store = draw(tmp_path, SPEC, "0")
    Image.new("RGB", (4, 4), "white").save(store.image_path(1))
    with pytest.raises(UserError, match=r"1\.png has changed since it was embedded"):
        run(sae_to(None), store)
    store.image_path(1).unlink()
    with pytest.raises(UserError, match=r"1\.png: the file is gone; put it back"):
        run(sae_to(None), store)


def test_a_clip_of_other_weights_is_refused(store: EmbeddingStore) -> None:
    clip = ColourClip()
    clip.sha = "f" * 16
    with pytest.raises(UserError, match=f"weights {'f' * 16}, but .* was embedded with {'0' * 16}"):
        zeroshot(sae_to(None), store, clip, np.arange(6))  # type: ignore[arg-type]


def test_the_report_of_a_run_holds_zero_shot_results(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.clip.store_images.load_clip", lambda name, device: ColourClip())
    monkeypatch.setattr(evaluate, "held_out_rows", lambda model, store: np.arange(6))
    model = sae_to(None)
    cpu = torch.device("cpu")
    asked = EvalConfig(n_zeroshot=100, templates=80)
    flat = evaluate.evaluate_run(model, store, tmp_path, cpu, asked).flat()
    assert flat["zeroshot_raw_top1"] == flat["zeroshot80_raw_top1"] == 0.8
    assert flat["photo/zeroshot_n_images"] == 2
    assert flat["sketch/zeroshot_sketch_raw_top1"] == flat["sketch/zeroshot_raw_top1"]
    assert {key for key in flat if "zeroshot_sketch_n" in key} == {
        "sketch/zeroshot_sketch_n_images",
        "sketch/zeroshot_sketch_n_classes",
    }


def test_a_clip_that_cannot_be_loaded_is_told_before_the_work(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, device: str) -> None:
        raise UserError("no library")

    monkeypatch.setattr("sae.clip.store_images.load_clip", fail)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: 1 / 0)
    monkeypatch.setattr(evaluate, "held_out_rows", lambda model, store: np.arange(6))
    with pytest.raises(UserError, match="no library; or add --no-zeroshot"):
        evaluate.evaluate_run(sae_to(None), store, None, torch.device("cpu"))
