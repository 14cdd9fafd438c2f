"""What many tests look at: a small CLIP, a few images, a finished walk over the built-in world."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae.clip.model import Clip, load_clip
from tests.support.commands import Walk, interp, sae
from tests.support.sae.embedded import Images, found
from tests.support.sae.small_clip import small_clip, write_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of models are kept for a day: not those of the person who runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """300 drawings, the tiny CLIP, 16 latents, collected. Read-only: copy what you change."""
    folder = tmp_path_factory.mktemp("walk")
    made = Walk(folder / "world", folder / "store", folder / "sae", folder / "run")
    domains = [f"sketch={made.world / 'sketch'}", f"photo={made.world / 'photo'}"]
    assert sae("world", "--n", 300, "--out", made.world, "--workers", 1) == 0
    assert sae("embed", "--domain", *domains, "--out", made.store, "--workers", 0) == 0
    latents = ("--n-latents", 16, "--k", 2, "--epochs", 20)
    assert sae("train", made.store, "--out", made.sae, *latents) == 0
    wide = ("--dense-above", 0.9)
    assert interp("collect", made.sae, made.store, "--run", made.run, *wide) == 0
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the models of one file of tests."""
    torch.set_num_threads(1)  # children are forked, and must not wait for threads left behind
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    """A small ViT with random weights."""
    return load_clip(small_clip(folder / "vit"), "cpu")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """12 sketches and 11 photos, all different."""
    return found(
        tmp_path, write_images(tmp_path / "sketch", 12), write_images(tmp_path / "photo", 11, 1)
    )
