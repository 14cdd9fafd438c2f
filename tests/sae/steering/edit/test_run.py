from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sae.clip.class_vectors import class_vectors
from sae.clip.model import Clip
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE
from tests.sae.steering.test_probe import write_saev_head
from tests.support.commands import sae
from tests.support.sae.embedded import Images, run
from tests.support.sae.engine_pairs import random_model

LATENT = 5


@pytest.fixture
def model(clip: Clip, tmp_path: Path) -> SAE:
    """On the patches behind block 1, in tmp_path/sae; its latent `LATENT` answers to much."""
    made = random_model(64, 32, 4).eval()
    with torch.no_grad():
        made.b_enc[LATENT] += 3
    made.config = replace(made.config, clip=clip.name, layer="1", tokens="patch")
    made.save(tmp_path / "sae")
    return made


@pytest.fixture
def image(images: Images) -> Path:
    return images.files[3].path


def hooked(clip: Clip, path: Path, change: Any) -> tuple[Tensor, Tensor]:
    """Unit row and pooled vector (1, ...) with what `change` makes of the tokens behind block 1."""
    visual = clip._model.visual
    pixels = clip.preprocess(Image.open(path).convert("RGB"))[None]
    handle = visual.transformer.resblocks[1].register_forward_hook(lambda *call: change(call[2]))
    with torch.no_grad():
        features = nn.functional.normalize(visual(pixels), dim=-1)
        kept, visual.proj = visual.proj, None
        pooled = visual(pixels)
        visual.proj = kept
    handle.remove()
    return features, pooled


def softmax(logits: Tensor) -> np.ndarray:
    shifted = np.exp(logits.double().numpy() - logits.double().numpy().max())
    return shifted / shifted.sum()


def command(tmp_path: Path, image: Path, *words: object) -> int:
    return sae("steer", "edit", tmp_path / "sae", image, "--out", tmp_path / "out", *words)


def test_probabilities_are_those_of_a_network_whose_hook_adds_the_decoded_change(
    clip: Clip, model: SAE, image: Path, tmp_path: Path
) -> None:
    linear = nn.Linear(64, 3)
    write_saev_head(tmp_path / "model.pt", linear)
    words = ("--latent", f"{LATENT}=set:7.5", "--where", "1,2;3,0", "--names", "cat,dog,ice cream")
    words += ("--probe", tmp_path / "model.pt", "--json", tmp_path / "figures.json")
    assert command(tmp_path, image, *words) == 0
    report = json.loads((tmp_path / "out" / "edit.json").read_text())
    (record,) = report["images"]

    def change(tokens: Tensor) -> Tensor:
        tokens = tokens.clone()  # (1, 1 + 16, 64): CLS, then four rows of four
        for place in (1 + 2 * 4 + 1, 1 + 0 * 4 + 3):
            x = tokens[:, place]
            act = model.encode(x).dense(32)[0, LATENT]
            tokens[:, place] = x + (7.5 - act) * model.W_dec[LATENT]
        return tokens

    names = ["cat", "dog", "ice cream"]
    texts = class_vectors(clip, names, ["a photo of a {}"])
    for place, way in enumerate((lambda tokens: tokens, change)):
        features, pooled = hooked(clip, image, way)
        expected = softmax(clip.logit_scale * features @ texts.T)[0]
        found = [record["zero_shot"][name][place] for name in names]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
        with torch.no_grad():
            expected = softmax(linear(pooled))[0]
        found = [record["probe"][name][place] for name in names]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert record["zero_shot"]["cat"][0] != pytest.approx(record["zero_shot"]["cat"][1], rel=1e-3)
    assert record["n_edited"] == 2
    assert record["latents"][0]["after"] == pytest.approx(max(7.5, record["latents"][0]["before"]))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["1/probe/dog/after"] == pytest.approx(record["probe"]["dog"][1])


def test_where_nothing_is_changed_nothing_changes(
    model: SAE, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, image, "--latent", f"{LATENT}=multiply:1", "--names", "cat,dog") == 0
    (record,) = json.loads((tmp_path / "out" / "edit.json").read_text())["images"]
    assert record["n_edited"] == 16
    for before, after in record["zero_shot"].values():
        assert before == after
    printed = capsys.readouterr().out
    assert "edited 16 of 16 tokens" in printed
    assert "+0.0%" in printed


def test_the_store_gives_the_classes_and_a_latents_maximum(
    clip: Clip, model: SAE, images: Images, image: Path, tmp_path: Path
) -> None:
    run(images, tmp_path / "store", clip, "1", "patch", dtype="float32")
    x = torch.cat([b.x.flatten(0, 1) for b in EmbeddingStore.open(tmp_path / "store").batches()])
    most = float(model.encode(x).dense(32)[:, LATENT].detach().max())
    words = ("--latent", f"{LATENT}=set:-2xmax", "--store", tmp_path / "store")
    assert command(tmp_path, image, *words, "--where", "peak") == 0
    report = json.loads((tmp_path / "out" / "edit.json").read_text())
    assert report["edits"][0]["value"] == pytest.approx(-2 * most, rel=1e-4)
    assert report["images"][0]["n_edited"] == 1
    assert list(report["images"][0]["zero_shot"]) == ["class0", "class1"]
    (picture,) = (tmp_path / "out").glob("*.png")
    assert picture.name == f"001-{image.stem}.png"
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 20


def test_what_an_imported_sae_does_not_say_of_itself_can_be_said(
    clip: Clip, model: SAE, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[object] = ["--latent", f"{LATENT}=set:9", "--names", "cat,dog"]
    assert command(tmp_path, image, *words) == 0
    told = json.loads((tmp_path / "out" / "edit.json").read_text())
    (tmp_path / "out" / "007-old.png").write_bytes(b"of an edit of more images")
    model.config = replace(model.config, clip="", layer="", tokens="")
    model.save(tmp_path / "sae")
    for name, value in (("clip", clip.name), ("layer", -2), ("tokens", "content")):
        assert command(tmp_path, image, *words) == 2
        assert f"does not say of which {name} it is; give --{name}" in capsys.readouterr().err
        words += [f"--{name}", value]
    assert command(tmp_path, image, *words) == 0
    assert json.loads((tmp_path / "out" / "edit.json").read_text()) == told
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == [f"001-{image.stem}.png"]


def test_bad_input_is_one_line_and_writes_nothing(
    clip: Clip,
    model: SAE,
    images: Images,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(images, tmp_path / "store", clip, "2", "patch")
    text = tmp_path / "text.png"
    text.write_text("no image")
    write_saev_head(tmp_path / "wide.pt", nn.Linear(9, 2))
    good, names = ("--latent", "5=set:1"), ("--names", "cat,dog")
    cases = {
        ("--latent", "32=set:1", *names): "the SAE has the latents 0 to 31",
        (*good, *names, "--where", "4,0"): "--where 4,0 is outside the grid of 4 x 4 patches",
        (*good, *names, "--where", "cls"): "this SAE reads patch tokens alone",
        (*good, "--store", tmp_path / "store"): "trained on layer '1', but the store has layer '2'",
        (*good, *names, "--layer", 0): "the SAE was trained on layer '1', not on '0'",
        (*good, *names, "--clip", "tiny"): "the SAE was trained on clip",
        ("--latent", "5=set:2xmax", *names): "2xmax) needs --store STORE",
        good: "zero-shot needs two classes or more, not 0",
        (*good, *names, "--probe", tmp_path / "wide.pt"): "reads vectors of 9 numbers",
        (*good, *names, "--template", "a photo"): "must hold {} once",
    }
    for words, said in cases.items():
        assert command(tmp_path, image, *words) == 2, words
        error = capsys.readouterr().err.strip()
        assert said in error.splitlines()[-1], (words, error)
    assert command(tmp_path, text, *good, *names) == 2
    assert "text.png: not a JPEG" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert sae("steer", "edit", tmp_path / "sae", image, "--out", tmp_path / "store", *good) == 2
    assert "holds something else, no edit" in capsys.readouterr().err
