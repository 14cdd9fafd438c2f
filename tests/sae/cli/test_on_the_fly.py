"""Images named in place of a store, through all three commands that take them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp.evidence.reader import EvidenceReader
from interp.pipeline.controls import make_control
from interp.run.run import Run
from sae.core.errors import OK, USAGE
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from sae.training import jobs
from tests.support.commands import Walk, interp, sae

CLIP = ("--layer", "2", "--tokens", "patch", "--workers", 0, "--device", "cpu")
SMALL = ("--n-latents", 32, "--k", 4, "--epochs", 2, "--batch-size", 256, "--device", "cpu")


@pytest.fixture(scope="module")
def domains(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Every second drawing of the walk."""
    world = tmp_path_factory.mktemp("second")
    for image in sorted(walk.world.glob("*/*/*.png"))[::2]:
        place = world / image.relative_to(walk.world)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)
    return ("--domain", *(f"{name}={world / name}" for name in ("sketch", "photo")))


@pytest.fixture(scope="module")
def kept(walk: Walk, domains: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store` and `sae`, trained on it."""
    folder = tmp_path_factory.mktemp("kept")
    assert sae("embed", *domains, "--out", folder / "store", *CLIP) == OK
    assert sae("train", folder / "store", "--out", folder / "sae", *SMALL) == OK
    return folder


def test_eval_and_collect_find_what_they_find_with_a_store(
    kept: Path, domains: tuple[str, ...], tmp_path: Path
) -> None:
    """The clip, the layer and the tokens are those of the SAE."""
    model, flags = kept / "sae", ("--workers", 0, "--device", "cpu")
    few = ("--n-zeroshot", 5, "--device", "cpu", "--json")
    assert sae("eval", model, kept / "store", *few, tmp_path / "a.json") == OK
    assert sae("eval", model, *domains, *few, tmp_path / "b.json", "--workers", 0) == OK
    known, made = (json.loads((tmp_path / f).read_text()) for f in ("a.json", "b.json"))
    assert made.keys() == known.keys()
    assert known["zeroshot_n_images"] > 0
    for name, value in known.items():
        assert made[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    assert interp("collect", model, kept / "store", "--run", tmp_path / "a") == OK
    assert interp("collect", model, *domains, *flags, "--run", tmp_path / "b") == OK
    ours, theirs = EvidenceReader(tmp_path / "a"), EvidenceReader(tmp_path / "b")
    assert ours.info.store_identity == theirs.info.store_identity
    assert np.abs(ours.latents["n_active"] - theirs.latents["n_active"]).max() <= 2
    example = theirs.of(theirs.live()[0]).examples[0]
    assert theirs.image(example).size == ours.image(example).size
    assert not list(tmp_path.rglob("*.safetensors")) or (tmp_path / "b" / "store").is_dir()
    assert not list((tmp_path / "b" / "store").glob("*.safetensors"))
    pd.testing.assert_frame_equal(theirs.store.images, ours.store.images)


def test_a_list_of_images_serves_where_a_store_does(
    kept: Path, domains: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, flags = kept / "sae", ("--workers", 0, "--device", "cpu")
    images = tmp_path / "images"
    names = [word.partition("=")[0] for word in domains[1:]]
    for name, word in zip(names, domains[1:], strict=True):
        shutil.copytree(word.partition("=")[2], images / name)
    copied = ("--domain", *(f"{name}={images / name}" for name in names))
    kept_run, made = tmp_path / "kept", tmp_path / "made"
    assert interp("collect", model, kept / "store", "--run", kept_run) == OK
    assert interp("collect", model, *copied, *flags, "--run", made) == OK
    for run in (kept_run, made):
        assert interp("compare", run, "--domains", "sketch,photo") == OK
    ours, theirs = (pd.read_csv(run / "compare/compare.csv") for run in (kept_run, made))
    assert ours["latent_id"].tolist() == theirs["latent_id"].tolist()
    assert np.allclose(ours["difference"], theirs["difference"], atol=0.01)
    assert interp("compare", kept_run, made) == OK
    assert pd.read_csv(kept_run / "compare/compare.csv")["change"].isna().all()
    assert sae("classes", model, made / "store", "--out", tmp_path / "of_list") == OK
    assert sae("classes", model, kept / "store", "--out", tmp_path / "of_store") == OK
    counts = [np.load(tmp_path / at / "cls_sae_cnt.npy") for at in ("of_list", "of_store")]
    assert np.abs(counts[0] - counts[1]).max() <= 2
    assert interp("collect", model, made / "store", "--run", tmp_path / "again") == OK
    inner = make_control(Run(made), "untrained", "cpu")
    assert inner.evidence.info.n_images == EvidenceReader(kept_run).info.n_images
    images_read = EmbeddingStore.open(made / "store")
    images_read.image_path(3).write_bytes(b"no image")
    capsys.readouterr()
    assert interp("compare", made, "--domains", "sketch,photo", "--out", tmp_path / "c") == USAGE
    assert f"cannot be read, the first of them {images_read.image_path(3)}" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "c").exists()


def test_a_training_on_the_fly_that_is_stopped_goes_on(
    walk: Walk,
    kept: Path,
    domains: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    buffered = ("--buffer-tokens", 2048)
    train = ("train", *domains, *CLIP[:-2], *SMALL, *buffered, "--out")
    assert sae(*train, tmp_path / "whole") == OK
    next_line = f"sae eval {tmp_path / 'whole'} --domain {domains[1]} {domains[2]}"
    assert next_line in capsys.readouterr().out
    keeper = jobs._keeper

    def stopping(lanes: object, group: object, stop: object) -> object:
        keep = keeper(lanes, group, lambda: lanes[0].trainer.n_done == 21)  # type: ignore[arg-type, index]
        return keep

    monkeypatch.setattr(jobs, "_keeper", stopping)
    assert sae(*train, tmp_path / "sae") == 130
    monkeypatch.undo()
    other = (*train[:-3], "--buffer-tokens", 4096, "--out")
    assert sae(*other, tmp_path / "sae") == USAGE
    assert "with buffer_tokens 2048, not 4096" in capsys.readouterr().err
    assert sae(*train, tmp_path / "sae") == OK
    assert "(from step 21 on)" in capsys.readouterr().out
    whole, again, stored = (load(p) for p in (tmp_path / "whole", tmp_path / "sae", kept / "sae"))
    torch.testing.assert_close(again.W_dec, whole.W_dec, atol=5e-3, rtol=0)
    assert whole.config.store == stored.config.store  # the same embeddings
    assert (whole.config.layer, whole.config.tokens) == ("2", "patch")
    fvu = [
        json.loads((p / "train.jsonl").read_text().splitlines()[-1])["fvu"]
        for p in (tmp_path / "whole", kept / "sae")
    ]
    assert fvu[0] == pytest.approx(fvu[1], abs=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "STORE", "DOMAINS"), "is a store, and --domain stands in its place"),
        (("train",), "name a store, or images in its place: --domain photo=DIR"),
        (("train", "STORE", "--layer", "1"), "--layer goes with --domain"),
        (("train", "DOMAINS", "--layer", "0,1"), "one layer at a time, but for `sae embed`"),
        (("train", "DOMAINS", "--tokens", "words"), "tokens 'words' is none of"),
        (("train", "DOMAINS", "--normalise", "--layer", "1"), "--normalise is for the layer"),
        (("train", "STORE", "k=4"), "unexpected argument 'k=4'"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    kept: Path,
    domains: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    typed: list[object] = []
    for word in words:
        typed += domains if word == "DOMAINS" else [kept / "store" if word == "STORE" else word]
    assert sae(*typed, "--out", tmp_path / "sae") == USAGE
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert not (tmp_path / "sae" / "config.json").exists()


def test_words_of_a_sweep_and_of_domains_are_told_apart(
    walk: Walk, domains: tuple[str, ...], tmp_path: Path
) -> None:
    few = ("--n-latents", 16, "--n-tokens", 512, "--batch-size", 256, "--device", "cpu")
    line = ("train", "--sweep", "k=2,4", *domains, "--workers", 0, *few, "--out", tmp_path / "s")
    assert sae(*line) == OK
    assert {p.name for p in (tmp_path / "s").iterdir() if p.is_dir()} == {"k2", "k4"}
    assert json.loads((tmp_path / "s" / "k2" / "train.json").read_text())["buffer_tokens"] == 262144
