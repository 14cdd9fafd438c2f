"""From the command line: a CLIP with MaPLe's prompts embeds, and is held to its own checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import open_clip
import pytest
import torch

from interp.pipeline.clip import model as clip_model
from sae.clip.model import load_clip
from sae.core.files import sha256_of
from sae.data.store import EmbeddingStore
from tests.support.commands import interp, sae
from tests.support.sae.maple_checkpoint import maple_weights, write_maple
from tests.support.sae.small_clip import small_clip, write_images


class Made(NamedTuple):
    folder: Path
    checkpoint: Path
    store: Path
    sae: Path

    @property
    def clip(self) -> str:
        return f"tiny+maple:{self.checkpoint}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Forty drawings, all tokens of a block of the tiny CLIP with prompts, an SAE on them."""
    folder = tmp_path_factory.mktemp("maple")
    weights = maple_weights(2, 2, d_text=tiny_width(), d_image=128)
    made = Made(
        folder, write_maple(folder / "maple.pth", weights), folder / "store", folder / "sae"
    )
    assert sae("world", "--n", 40, "--size", 64, "--out", folder / "world", "--workers", 1) == 0
    domains = [f"{name}={folder / 'world' / name}" for name in ("sketch", "photo")]
    how = ("--layer", 4, "--tokens", "all", "--workers", 0)
    assert sae("embed", *domains, "--clip", made.clip, *how, "--out", made.store) == 0
    size = ("--n-latents", 16, "--k", 2, "--epochs", 1)
    assert sae("train", made.store, "--out", made.sae, *size) == 0
    return made


def tiny_width() -> int:
    return int(load_clip("tiny", "cpu")._model.token_embedding.weight.shape[1])


def test_the_store_has_the_layout_of_the_plain_clip_and_the_adapters_hash(made: Made) -> None:
    info = EmbeddingStore.open(made.store).info
    assert info.adapter_sha == sha256_of(made.checkpoint)[:16]
    assert (info.clip, info.view) == (made.clip, "squash")
    assert (info.tokens_per_image, info.grid, info.d) == (65, [8, 8], 128)
    assert info.clip_sha not in ("", load_clip("tiny", "cpu").sha)


def test_each_step_runs_on_it(made: Made, tmp_path: Path) -> None:
    run, classes = tmp_path / "run", tmp_path / "classes"
    assert interp("collect", made.sae, made.store, "--run", run) == 0
    assert sae("classes", made.sae, made.store, "--out", classes) == 0
    steered = ("--classes-from", classes, "--k", 2, "--n-images", 2, "--n-others", 2)
    out = tmp_path / "steered"
    assert sae("steer", "classify", made.sae, made.store, *steered, "--out", out) == 0
    assert (out / "metrics.csv").exists()
    evaluated = ("--n-zeroshot", 10, "--templates", 1, "--json", tmp_path / "eval.json")
    assert sae("eval", made.sae, made.store, *evaluated) == 0
    figures = json.loads((tmp_path / "eval.json").read_text())
    assert any("zeroshot" in name for name in figures), sorted(figures)


def test_an_sae_of_the_plain_clip_sees_the_adapted_one_and_is_compared(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, trained, runs = tmp_path / "plain", tmp_path / "sae", tmp_path / "runs"
    domains = [f"{name}={made.folder / 'world' / name}" for name in ("sketch", "photo")]
    how = ("--layer", 4, "--tokens", "all", "--workers", 0)
    assert sae("embed", *domains, "--clip", "tiny", *how, "--out", plain) == 0
    assert sae("train", plain, "--out", trained, "--n-latents", 16, "--k", 2, "--epochs", 1) == 0
    told = f"the SAE was trained on clip 'tiny', and sees what was made of it, '{made.clip}'"
    for store, is_adapted in ((plain, False), (made.store, True)):
        capsys.readouterr()
        assert interp("collect", trained, store, "--run", runs / store.name) == 0
        assert (told in " ".join(capsys.readouterr().err.split())) == is_adapted
    assert interp("compare", runs / plain.name, runs / made.store.name) == 0
    assert (runs / plain.name / "compare" / "compare.csv").exists()
    capsys.readouterr()
    assert interp("collect", made.sae, plain, "--run", runs / "back") == 2
    assert "the store has clip 'tiny'" in capsys.readouterr().err


def test_a_checkpoint_that_has_changed_is_refused_by_what_loads_the_clip(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes, run = tmp_path / "classes", tmp_path / "run"
    assert sae("classes", made.sae, made.store, "--out", classes) == 0
    assert interp("collect", made.sae, made.store, "--run", run) == 0
    kept = made.checkpoint.read_bytes()
    weights = maple_weights(2, 2, d_text=tiny_width(), d_image=128, seed=1)
    picture = next((made.folder / "world" / "photo").rglob("*.png"))
    both = (made.sae, made.store)
    edited = (made.sae, picture, "--store", made.store, "--latent", "1=multiply:0")
    clip_model._encoder.cache_clear()  # it holds the one of before
    try:
        write_maple(made.checkpoint, weights)
        for command in (
            lambda: sae("steer", "classify", *both, "--classes-from", classes),
            lambda: sae("steer", "edit", *edited, "--out", tmp_path / "edit"),
            lambda: sae("eval", *both),
            lambda: sae("probe", made.store, "--out", tmp_path / "probe"),
            lambda: interp("explain", "--model", "local", "--run", run),
        ):
            capsys.readouterr()
            assert command() == 2
            said = capsys.readouterr().err
            assert "the adapter of tiny+maple:" in said
            assert "put that file back" in said
    finally:
        made.checkpoint.write_bytes(kept)


def test_fine_tuned_weights_in_a_file_are_named_by_the_model_that_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_clip(tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "open_clip_config.json").read_text())["model_cfg"]
    vocabulary = str(tmp_path / "vocab.txt.gz")
    config["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = vocabulary
    (tmp_path / "sae-file-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "sae-file-clip.json")
    plain = load_clip(f"local-dir:{tmp_path / 'vit'}", "cpu")
    tuned = tmp_path / "tuned.pt"
    state = {**plain._model.state_dict()}
    state["visual.proj"] = 2 * state["visual.proj"]
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tuned)
    clip = load_clip(f"sae-file-clip/file:{tuned}", "cpu")
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(clip.embed_images(pixels), 2 * plain.embed_images(pixels))
    maple = write_maple(tmp_path / "maple.pth", maple_weights(2, 1, 64, 64))
    assert load_clip(f"{clip.name}+maple:{maple}", "cpu").adapter_sha
    write_images(tmp_path / "images", 1)
    for name, words in (
        (f"sae-file-clip/file:{tmp_path / 'none.pt'}", "there is no file"),
        (f"sae-file-clop/file:{tuned}", "did you mean sae-file-clip"),
        (f"sae-file-clip/file:{maple}", "cannot load the CLIP model"),
    ):
        capsys.readouterr()
        out = ("--out", tmp_path / "store")
        assert sae("embed", f"a={tmp_path / 'images'}", "--clip", name, *out) == 2
        assert words in capsys.readouterr().err
