"""`interp score --judge-clip`: which CLIP judges, what is said of it, and old command lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interp.report.labels import read_labels
from interp.run.run import Run
from sae.core.errors import OK, USAGE
from tests.support.commands import Walk, interp
from tests.support.sae.small_clip import RESNET, small_clip

LOCAL = ("--model", "local")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A convolutional CLIP with random weights."""
    return small_clip(tmp_path_factory.mktemp("clips") / "resnet", RESNET)


@pytest.fixture(scope="module")
def explained(walk: Walk) -> Path:
    """A copy of the collected run beside the store, explained."""
    copy = walk.run.with_name("judged")
    shutil.copytree(walk.run, copy)
    assert interp("explain", *LOCAL, "--run", copy, "--latents", "0-3") == OK
    return copy


@pytest.mark.parametrize("how", ["--judge-clip", "--clip", "judge-clip", "clip"])
def test_the_clip_that_is_named_judges_however_it_is_named(
    explained: Path, other: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(f'[score]\n{how} = "{other}"\n')
    words = (how, other) if how.startswith("--") else ("--config", config)
    assert interp("score", *LOCAL, "--run", explained, *words) == OK
    said = capsys.readouterr().out
    assert "scored by local:local-dir:resnet" in said
    assert "circular" not in said
    live = read_labels(explained).query("scorer != ''")
    assert set(live["circular"]) == {"no"}
    assert Run(explained).info.settings["score"]["clip"] == "local-dir:resnet"


def test_the_saes_own_clip_is_said_to_be_circular(
    explained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("score", *LOCAL, "--run", explained, "--judge-clip", "tiny") == OK
    assert "circular: the judge looks with the CLIP that the SAE is made of" in (
        capsys.readouterr().out
    )
    assert set(read_labels(explained).query("scorer != ''")["circular"]) == {"yes"}


def test_a_judge_that_does_not_exist_is_told_in_one_line(
    explained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("score", *LOCAL, "--run", explained, "--judge-clip", "ViT-B-32/opena") == USAGE
    assert "did you mean 'openai'?" in capsys.readouterr().err


def test_a_misspelt_key_of_a_config_names_the_option(
    explained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('[score]\njudge-clap = "tiny"\n')
    assert interp("score", *LOCAL, "--run", explained, "--config", config) == USAGE
    assert "unknown key 'judge_clap'; did you mean 'judge_clip'?" in capsys.readouterr().err
