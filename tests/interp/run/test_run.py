"""The run folder: what run.json keeps, which run is meant, which latents are meant."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from interp.evidence.reader import EvidenceReader
from interp.pipeline.settings import ModelSettings
from interp.run.latents import choose_latents
from interp.run.run import Run, run_folder
from sae.core.clip_name import without_place
from sae.core.errors import OK, USAGE, UserError
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from tests.support.commands import Walk, interp


def test_run_json_holds_no_absolute_path_and_no_user_name(walk: Walk) -> None:
    text = (walk.run / "run.json").read_text()
    values = json.loads(text)
    assert not os.path.isabs(values["store"])
    assert str(walk.run) not in text
    assert str(Path.home()) not in text
    assert Run(walk.run).store == walk.store


def test_local_clip_folder_is_named_without_its_place() -> None:
    assert without_place("local-dir:/somewhere/private/clip") == "local-dir:clip"
    assert without_place("hf-hub:org/name") == "hf-hub:org/name"


def test_recorded_settings_hold_no_place_and_no_login() -> None:
    settings = ModelSettings(
        model="x/y",
        base_url="http://me:secret@127.0.0.1:1/v1?key=secret",
        clip="local-dir:/private/clip",
        vocabulary="/private/words.txt",
    )
    text = json.dumps(settings.recorded())
    assert "private" not in text
    assert "secret" not in text
    assert "words.txt" in text


def test_run_of_another_sae_is_refused(walk: Walk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(walk.run, run)
    other = load(walk.sae)
    other.b_enc.data += 1
    with pytest.raises(UserError, match="another SAE"):
        Run.create(run, walk.sae, other, EmbeddingStore.open(walk.store))


def test_newest_run_is_meant_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("old", "new")):
        path = tmp_path / "results" / name / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (1000 + 4000 * age, 1000 + 4000 * age))
    assert Run.open().path.name == "new"
    assert Run.open("old").path.name == "old"
    with pytest.raises(UserError, match="runs here: new, old"):
        Run.open("odl")


def test_of_several_fresh_runs_the_one_that_was_named_is_meant_or_a_name_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "run.json").write_text("{}")
    assert interp("cards") == USAGE
    assert "2 runs in results/ are of one hour (one, two); say which with --run" in (
        capsys.readouterr().err
    )
    assert Run.open("one").path == Path("results/one")
    assert Run.open().path == Path("results/one")
    (tmp_path / "results" / "one" / "run.json").unlink()
    assert Run.open().path == Path("results/two")


def test_the_run_that_nobody_named_is_said_on_the_first_line(
    walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert interp("collect", walk.sae, walk.store, "--run", "mine") == OK
    capsys.readouterr()
    assert interp("cards") == OK
    assert capsys.readouterr().out.splitlines()[0] == "run:      results/mine"


def test_plain_name_lies_under_results_and_a_path_is_a_path() -> None:
    assert run_folder("mine") == Path("results/mine")
    assert run_folder("somewhere/else") == Path("somewhere/else")


def test_latents_are_chosen_by_number_and_range(walk: Walk) -> None:
    reader = EvidenceReader(walk.run)
    assert choose_latents(reader, "3, 1,8-10") == [1, 3, 8, 9, 10]
    assert choose_latents(reader, None) == reader.live()


@pytest.mark.parametrize("spec", ["x", "3-", "99", "5-2", ",", "-1"])
def test_what_is_no_latent_is_refused_with_the_range(walk: Walk, spec: str) -> None:
    with pytest.raises(UserError, match="--latents"):
        choose_latents(EvidenceReader(walk.run), spec)


def test_dense_latents_are_left_out_unless_asked_for(walk: Walk) -> None:
    reader = EvidenceReader(walk.run)
    reader.__dict__["status"] = ("dense", "dead", *reader.status[2:])
    assert 0 not in choose_latents(reader, None)
    assert 0 in choose_latents(reader, None, dense=True)
    assert 1 not in choose_latents(reader, None, dense=True)
