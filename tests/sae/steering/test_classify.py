"""Steering classes: metrics.csv from its description in numpy, the control, refusals in a line."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from sae.clip.model import Clip, Halfway
from sae.clip.store_images import load_clip_of, run_to_layer
from sae.core.errors import UserError
from sae.core.files import write_json
from sae.data.classes.latents import read_class_latents
from sae.data.classes.names import class_name
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.steering.control import draw_controls
from sae.steering.plan import choose_ks
from tests.sae.steering.conftest import N_LATENTS, Steering
from tests.support.commands import sae
from tests.support.sae.numpy_network import decode, encode, finish

STEERED = ["anchor", "boat", "star"]
KS = [1, 5, N_LATENTS]
N_OTHERS = 12


def words_of(steering: Steering) -> tuple[object, ...]:
    return ("steer", "classify", steering.sae, steering.store.path)


def run(steering: Steering, out: Path, *more: object) -> pd.DataFrame:
    three = [word for name in STEERED for word in ("--class", name)]
    few = ("--k", ",".join(map(str, KS)), "--n-others", N_OTHERS)
    folders = ("--classes-from", steering.classes, "--out", out)
    assert sae(*words_of(steering), *folders, *three, *few, *more) == 0
    return pd.read_csv(out / "metrics.csv")


def order_by_numpy(steering: Steering) -> dict[str, list[int]]:
    """All latents of each class: by the mean of their largest activation on an image, those that
    are among the first 10 of more than half of the classes last."""
    x = steering.store.read(np.arange(steering.store.info.n_images)).double().numpy()
    z = encode(steering.model, x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1).max(1)
    labels = np.array([class_name(label) for label in steering.store.images["label"]])
    names = sorted(set(labels))
    means = {name: z[labels == name].mean(0) for name in names}
    orders = {name: sorted(range(N_LATENTS), key=lambda i: -means[name][i]) for name in names}
    listed = [[i for i in orders[n][:10] if means[n][i] > 0] for n in names]
    shared = {i for i in range(N_LATENTS) if sum(i in one for one in listed) > len(names) / 2}
    return {n: sorted(order, key=lambda i: i in shared) for n, order in orders.items()}


def wilson(hits: int, n: int) -> tuple[float, float]:
    z = 1.959964
    share = hits / n
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / n) ** 2 / 4)
    return ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))


class ByNumpy:
    """The tokens, the classes and what is named, from the description alone."""

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        store = steering.store
        self.x = store.read(np.arange(store.info.n_images)).double().numpy()
        self.ids = store.images["image_id"].to_numpy()
        self.truth = np.array([class_name(label) for label in store.images["label"]])
        self.names = np.array(sorted(set(self.truth)))
        texts = [f"a photo of a{'n' if n[0] in 'aeiou' else ''} {n}" for n in self.names]
        self.texts = steering.clip.embed_texts(texts).double().numpy()
        self.z = encode(steering.model, self.x.reshape(-1, self.x.shape[2]))
        self.z = self.z.reshape(*self.x.shape[:2], -1)

    def name(self, x: NDArray[np.float64]) -> NDArray[np.object_]:
        features = finish(self.steering.clip._model.visual, x, 4, 4)
        return self.names[(features @ self.texts.T).argmax(1)]  # type: ignore[no-any-return]

    def steer(
        self, rows: NDArray[np.int64], mask: NDArray[np.float64], error: str
    ) -> NDArray[np.object_]:
        """`mask` (len(rows), n_latents) is what the activations are multiplied by."""
        x, z = self.x[rows], self.z[rows]
        changed = decode(self.steering.model, z * mask[:, None])
        if error == "kept":
            changed = x + changed - decode(self.steering.model, z)
        return self.name(changed)


@pytest.mark.parametrize(
    ("error", "class_from"), [("kept", "true"), ("dropped", "true"), ("kept", "predicted")]
)
def test_metrics_are_those_of_plain_numpy(
    steering: Steering, tmp_path: Path, error: str, class_from: str
) -> None:
    how = ("--error", error, "--class-from", class_from, "--n-images", 2)
    found = run(steering, tmp_path / "out", *how).set_index(["class", "configuration"])
    by, orders = ByNumpy(steering), order_by_numpy(steering)
    first_two = {
        row
        for name in by.names
        for row in sorted(np.flatnonzero(by.truth == name), key=lambda r: by.ids[r])[:2]
    }
    plain = by.name(by.x)
    controls = pd.read_parquet(tmp_path / "out/controls.parquet")
    for name in STEERED:
        own = np.array(sorted(r for r in first_two if by.truth[r] == name))
        others = sorted((r for r in first_two if by.truth[r] != name), key=lambda r: by.ids[r])
        rows = np.concatenate([own, np.array(others[:N_OTHERS])])
        for configuration, line in found.loc[name].iterrows():
            named = plain[rows]
            if configuration != "no_sae":
                word, k = configuration.split("_")[-2], int(configuration.split("_")[-1])
                mask = np.full((len(rows), N_LATENTS), float(word == "off"))
                for place, row in enumerate(rows):
                    whose = name if class_from == "true" else plain[row]
                    chosen = orders[whose][:k]
                    if configuration.startswith("control"):
                        if whose not in STEERED:  # written down for those alone
                            break
                        mine = (controls["class"] == whose) & (controls["k"] == k)
                        chosen = controls.loc[mine, "latent"].tolist()
                    mask[place, chosen] = float(word == "on")
                else:
                    named = by.steer(rows, mask, error)
                    mass = np.abs(by.z[own]).sum((0, 1))
                    if class_from == "true":
                        assert line["mass"] == pytest.approx(mass[chosen].sum() / mass.sum(), 1e-4)
                if configuration.startswith("control") and class_from == "predicted":
                    continue
            right = named == by.truth[rows]
            where = f"{name} {configuration}"
            assert line["n_images"] == len(own)
            assert line["n_others"] == N_OTHERS
            assert line["recall"] == pytest.approx(right[: len(own)].mean()), where
            assert line["other_recall"] == pytest.approx(right[len(own) :].mean()), where
            interval = wilson(int(right[: len(own)].sum()), len(own))
            bounds = (max(0, interval[0]), min(1, interval[1]))
            assert (line["low"], line["high"]) == pytest.approx(bounds, abs=1e-6)
    assert found["recall"].nunique() > 2  # something is steered at all


def test_all_latents_on_with_the_error_kept_is_the_network_alone_and_the_wide_table_is_patchsaes(
    steering: Steering, tmp_path: Path
) -> None:
    found = run(steering, tmp_path / "out")
    wide = pd.read_csv(tmp_path / "out/metrics_wide.csv").set_index("configuration")
    names = json.loads((tmp_path / "out/steered.json").read_text())["names"]
    lines = ["no_sae", *(f"{word}_{k}" for k in KS for word in ("on", "off"))]
    assert wide.index.tolist() == lines
    assert wide.columns.tolist() == [str(number) for number in range(len(names))]
    assert wide.notna().sum(axis=1).tolist() == [len(STEERED)] * len(lines)
    for _, line in found[~found["configuration"].str.startswith("control")].iterrows():
        cell = wide.loc[line["configuration"], str(names.index(line["class"]))]
        assert cell == pytest.approx(100 * line["recall"])
    table = found.pivot(index="class", columns="configuration", values="recall")
    assert (table["no_sae"] == table[f"on_{N_LATENTS}"]).all()
    assert (tmp_path / "out/recall.png").read_bytes()[:4] == b"\x89PNG"
    # There are no other latents for half of them or more.
    assert set(pd.read_parquet(tmp_path / "out/controls.parquet")["k"]) == {1, 5}
    again = run(steering, tmp_path / "again")
    pd.testing.assert_frame_equal(found, again)


def test_the_control_has_as_many_others_of_nearly_the_same_activation() -> None:
    rng = np.random.default_rng(0)
    mass = rng.exponential(size=(3, 400))
    chosen = np.argsort(-mass, axis=1)[:, 5:45]  # others as heavy are there
    drawn = draw_controls(mass, chosen, np.random.default_rng(1))
    for line, own, others in zip(mass, chosen, drawn, strict=True):
        assert len(set(others.tolist())) == 40
        assert not set(others.tolist()) & set(own.tolist())
        assert line[own].sum() / line[others].sum() < 2
    chosen = np.argsort(-mass, axis=1)[:, 100:140]
    drawn = draw_controls(mass, chosen, np.random.default_rng(1))
    ratio = np.take_along_axis(mass, drawn, 1).sum(1) / np.take_along_axis(mass, chosen, 1).sum(1)
    np.testing.assert_allclose(ratio, 1, atol=0.02)
    other = draw_controls(mass, chosen, np.random.default_rng(2))
    assert (np.sort(drawn) != np.sort(other)).any()


def test_the_network_before_the_layer_runs_once_an_image(
    steering: Steering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = Clip.run_to

    def counted(self: Clip, pixels: Any, layer: str) -> Halfway:
        seen.append(len(pixels))
        return real(self, pixels, layer)

    monkeypatch.setattr(Clip, "run_to", counted)
    found = run(steering, tmp_path / "out")
    images = found.drop_duplicates("class")["n_images"].sum()
    assert images <= sum(seen) <= images + N_OTHERS + len(STEERED)


def test_a_store_of_projected_embeddings_needs_no_images(
    steering: Steering, walk: Any, tmp_path: Path
) -> None:
    store = tmp_path / "moved"
    shutil.copytree(walk.store, store)  # its images are not where it says
    assert sae("classes", walk.sae, store, "--out", tmp_path / "c", "--max-classes", 1) == 0
    words = ("steer", "classify", walk.sae, store, "--classes-from", tmp_path / "c")
    assert sae(*words, "--k", "1,16", "--n-others", 5, "--json", tmp_path / "figures.json") == 0
    found = pd.read_csv(tmp_path / "c-steered/metrics.csv")  # beside, where nothing is said
    figures = json.loads((tmp_path / "figures.json").read_text())
    off = found[found["configuration"] == "off_1"]
    assert figures["off_1"] == pytest.approx(off["recall"].mean())
    assert figures["off_1_others"] == pytest.approx(off["other_recall"].mean())
    assert off["recall"].mean() < figures["no_sae"]


def test_what_cannot_be_steered_is_one_line(
    steering: Steering, walk: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(words: str, *more: object, model: Path = steering.sae) -> None:
        capsys.readouterr()
        command = ("steer", "classify", model, steering.store.path, "--out", tmp_path / "out")
        assert sae(*command, *more) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1, said
        assert words in said[0]

    here = ("--classes-from", steering.classes)
    refused(
        "--class 'ancor' is no class of --classes-from; did you mean 'anchor'?",
        *here,
        "--class",
        "ancor",
    )
    refused(f"--k {N_LATENTS + 1} is not in 1..{N_LATENTS}", *here, "--k", f"1,{N_LATENTS + 1}")
    refused("--k '1,x' is not a list of whole numbers", *here, "--k", "1,x")
    refused("--error 'gone' is none of kept, dropped", *here, "--error", "gone")
    refused("--class-from 'none' is none of true, predicted", *here, "--class-from", "none")
    refused("--templates 2 is neither 1 nor 80", *here, "--templates", 2)
    refused("is no folder", "--classes-from", tmp_path / "gone")
    other = tmp_path / "other"
    shutil.copytree(steering.sae, other)
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", {**config, "layer": "3"})
    refused("trained on layer '3', but the store has layer '4'", *here, model=other)
    refused("trained on d 256, but the store has d 128", *here, model=walk.sae)
    changed = tmp_path / "classes"
    shutil.copytree(steering.classes, changed)
    there = ("--classes-from", changed)
    np.save(changed / "cls_sae_cnt.npy", np.ones((N_LATENTS - 1, 3)))
    refused(f"but the SAE has {N_LATENTS} latents", *there)
    bare = tmp_path / "bare"
    bare.mkdir()
    counts = np.load(steering.classes / "cls_sae_cnt.npy")
    np.save(bare / "cls_sae_cnt.npy", counts.T)
    names = json.loads((steering.classes / "classes.json").read_text())["names"]
    write_json(bare / "export.json", {"class_names": ["dragon", *names[1:]]})
    refused(
        "the class 'dragon' of --classes-from has no image in the store", "--classes-from", bare
    )
    np.save(bare / "cls_sae_cnt.npy", counts.T[1:])
    write_json(bare / "export.json", {"class_names": names[1:]})
    refused(f"the class {names[0]!r} of the store is not in", "--classes-from", bare)
    nameless = replace(steering.store.info, clip="")
    with pytest.raises(UserError, match=r"does not say which CLIP .*; `sae adopt .* --clip NAME"):
        load_clip_of(EmbeddingStore(steering.store.path, nameless, steering.store.layout), "cpu")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    refused("holds something else", *here)


def test_patchsaes_file_steers_like_ours_by_count(steering: Steering, tmp_path: Path) -> None:
    counts = np.load(steering.classes / "cls_sae_cnt.npy").T  # as its code writes it
    np.save(tmp_path / "cls_sae_cnt.npy", counts)
    identity, labels = sae_identity(steering.model), steering.store.images["label"]
    found = read_class_latents(tmp_path, N_LATENTS, identity, labels)
    assert found.names == sorted({class_name(label) for label in labels})
    for line, order in zip(counts, found.order, strict=True):
        assert order.tolist() == sorted(range(N_LATENTS), key=lambda i: (-line[i], i))


def test_the_numbers_of_latents_are_patchsaes_as_far_as_there_are_so_many() -> None:
    assert choose_ks([], 49152) == [1, 2, 5, 10, 50, 100, 500, 1000, 2000, 49152]
    assert choose_ks([], 500) == [1, 2, 5, 10, 50, 100, 500]
    assert choose_ks([10, 2, 10], 16) == [2, 10]


def test_a_settings_file_has_a_table_for_a_command_of_a_group(
    steering: Steering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[train]\nk = 3\n[steer.classify]\nn-others = 3\nk = "1"\ncontrol = false\n'
    )
    command = (*words_of(steering), "--classes-from", steering.classes, "--config", settings)
    assert sae(*command, "--class", "star", "--out", tmp_path / "out") == 0
    found = pd.read_csv(tmp_path / "out/metrics.csv")
    assert found["configuration"].tolist() == ["no_sae", "on_1", "off_1"]
    assert set(found["n_others"]) == {3}
    capsys.readouterr()
    for text, words in (
        (
            "[steer.clasify]\nk = 1\n",
            "[steer.clasify] is not the table of a command; did you mean 'classify'?",
        ),
        ("[steer]\nk = 1\n", "[steer.k] is not the table of a command"),
        (
            "[steer.classify]\nn-other = 1\n",
            "[steer.classify] has the unknown key 'n_other'; did you mean 'n_others'?",
        ),
    ):
        settings.write_text(text)
        assert sae(*command) == 2
        assert words in capsys.readouterr().err


def test_a_stopped_command_goes_on_and_ends_with_the_same_bytes(
    steering: Steering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.steering.classify.IMAGES_AT_ONCE", 4)
    looked_at: list[list[int]] = []
    most = 10**6

    def look(clip: Clip, store: EmbeddingStore, rows: NDArray[np.int64]) -> Halfway:
        if len(looked_at) == most:
            raise UserError("stopped")
        looked_at.append(rows.tolist())
        return run_to_layer(clip, store, rows)

    monkeypatch.setattr("sae.steering.classify.run_to_layer", look)
    whole, out = tmp_path / "whole", tmp_path / "out"
    few = ("--k", 5, "--n-others", 4, "--n-images", 2)
    run(steering, whole, *few)
    unbroken = looked_at.copy()
    looked_at.clear()
    most = 2
    assert sae(*words_of(steering), "--classes-from", steering.classes, "--out", out, *few) == 2
    most = 10**6
    run(steering, out, *few[:-1], 1)  # another call: nothing of the stopped one is taken
    assert len(looked_at) > 2
    assert not (tmp_path / "out.part").exists()
    looked_at.clear()
    most = 2
    with pytest.raises(AssertionError):
        run(steering, out, *few)
    most = 10**6
    run(steering, out, *few)
    assert looked_at == unbroken  # each part once, in both calls together
    for name in ("metrics.csv", "metrics_wide.csv", "steered.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not (out / "named.jsonl").exists()
