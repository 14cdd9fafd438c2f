"""`interp score --judge-clip`: which CLIP judges, what is said of it, and old command lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from interp.local.vocabulary import WORLD_CLIPS
from interp.pipeline.clip.model import judge_clip_name
from interp.pipeline.settings import JudgeSettings
from interp.report.labels import read_labels
from interp.run.run import Run
from sae.clip.names import BUILT_IN
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


def test_on_the_world_the_other_built_in_clip_judges(
    explained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("score", *LOCAL, "--run", explained) == OK
    said = capsys.readouterr().out
    assert "scored by local:tiny-conv" in said
    assert "circular" not in said
    assert set(read_labels(explained).query("scorer != ''")["circular"]) == {"no"}


def test_an_sae_of_either_built_in_clip_is_judged_by_the_other_and_elsewhere_by_its_own(
    explained: Path, tmp_path: Path
) -> None:
    settings = JudgeSettings(model="local")
    run = Run(Path(shutil.copytree(explained, explained.with_name("either"))))
    store = Path(shutil.copytree(run.store, run.store.with_name("store-either")))
    config = json.loads((run.path / "run.json").read_text())
    for clip, judge in (("tiny", "tiny-conv"), ("tiny-conv", "tiny"), ("A/b", "tiny-conv")):
        (run.path / "run.json").write_text(
            json.dumps({**config, "clip": clip, "store": "../store-either"})
        )
        assert judge_clip_name(run, settings) == judge
    info = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps({**info, "roots": {"photo": str(tmp_path)}}))
    assert judge_clip_name(run, settings) == "tiny"  # the store's own: circular


def test_built_in_names_are_the_same_where_they_are_looked_up_and_where_words_are_chosen() -> None:
    assert set(WORLD_CLIPS) == set(BUILT_IN)


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
