"""Where words and CLIP do not fit the images, a user is told before believing the names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from interp.local.fit import MOST_ALIKE, is_world, misfit
from interp.local.vocabulary import load_vocabulary
from interp.run.run import Run
from sae.core.errors import OK
from sae.world.scene.concepts import CONCEPTS
from tests.support.commands import Walk, interp, sae

LOCAL = ("--model", "local")
VARIED = F.normalize(torch.randn(200, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
ALIKE = F.normalize(VARIED + 0.2, dim=-1)
WORLD = [concept.name for concept in CONCEPTS]


def test_the_tiny_clip_fits_the_world_and_images_that_differ_as_much() -> None:
    assert ALIKE.mean(0).norm() > MOST_ALIKE > VARIED.mean(0).norm()
    assert misfit("tiny", WORLD, True, ALIKE) == ""
    assert misfit("tiny", WORLD, False, VARIED) == ""
    said = misfit("tiny", WORLD, False, ALIKE)
    assert "--clip ViT-B-32/openai --vocabulary general" in said


def test_words_that_a_clip_does_not_know_or_that_are_the_worlds_alone_are_told() -> None:
    foreign = [f"word {number}" for number in range(200)]
    assert "0 of these 200" in misfit("tiny", foreign, True, VARIED)
    assert misfit("ViT-B-32/openai", foreign, False, ALIKE) == ""
    assert "--vocabulary general" in misfit("ViT-B-32/openai", WORLD, False, ALIKE)
    assert misfit("ViT-B-32/openai", WORLD, True, ALIKE) == ""
    assert misfit("ViT-B-32/openai", ["cat", "dog"], False, ALIKE) == ""  # labels to judge


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collected run on 120 plain coloured shapes."""
    folder = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(0)
    for number in range(120):
        image = Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist()))
        at, colour = rng.integers(4, 30, 2).tolist(), tuple(rng.integers(0, 256, 3).tolist())
        box = (*at, at[0] + 20, at[1] + 24)
        draw = ImageDraw.Draw(image)
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=colour)
        path = folder / "photo" / ("round" if number % 2 else "square") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    where = ("--out", folder / "store", "--workers", 0)
    assert sae("embed", "--domain", f"photo={folder / 'photo'}", "--clip", "tiny", *where) == OK
    small = ("--n-latents", 8, "--k", 2, "--epochs", 3)
    assert sae("train", folder / "store", "--out", folder / "sae", *small) == OK
    run = ("--run", folder / "run", "--dense-above", 0.9)
    assert interp("collect", folder / "sae", folder / "store", *run) == OK
    return folder / "run"


def test_foreign_images_are_told_when_naming_and_when_judging(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("explain", "score"):
        assert interp(command, "--run", foreign, *LOCAL, "--limit", 2) == OK
        said = capsys.readouterr()
        assert "interp: the tiny CLIP has seen the built-in drawn world alone" in said.err
        assert "--clip ViT-B-32/openai --vocabulary general" in said.err
    assert "circular: the judge looks with the CLIP that the SAE is made of" in said.out


def test_the_worlds_own_images_are_not(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(walk.run, walk.run.with_name("fits")))
    assert is_world(walk.world / "sketch")
    assert is_world(Run(run).store / ".." / "world" / "photo")
    for command in ("explain", "score"):
        assert interp(command, "--run", run, *LOCAL, "--limit", 2) == OK
    assert "tiny CLIP" not in capsys.readouterr().err


def test_a_tiny_clip_with_an_adapter_still_knows_the_words_of_the_world_alone() -> None:
    assert load_vocabulary("auto", "tiny+maple:model.pth") == load_vocabulary("auto", "tiny")
    assert load_vocabulary("auto", "ViT-B-16/openai+maple:model.pth") != load_vocabulary(
        "auto", "tiny"
    )
