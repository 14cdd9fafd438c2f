"""While one process works on a run others may look at it; what is done loads and asks nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.llm.ledger.ledger import Ledger
from sae.core.errors import OK, USAGE
from sae.core.lock import hold
from tests.support.commands import Walk, interp


@pytest.fixture(scope="module")
def labelled(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with labels and scores of the local model; read-only."""
    run = Path(shutil.copytree(walk.run, walk.run.with_name("labelled")))
    assert interp("explain", "--run", run, "--model", "local") == OK
    assert interp("score", "--run", run, "--model", "local") == OK
    return run


@pytest.fixture
def run(labelled: Path) -> Iterator[Path]:
    """A copy of one's own beside it: the store is named relative to the run."""
    copy = Path(shutil.copytree(labelled, labelled.with_name("at-work")))
    yield copy
    shutil.rmtree(copy)


PAID = ("--model", "openai/gpt-4.1-mini", "--price", "1,2")


@pytest.mark.parametrize(
    "command",
    [
        ("explain", *PAID, "--estimate"),
        ("score", *PAID, "--estimate"),
        ("explain", *PAID, "--dry-run", 1),
        ("score", *PAID, "--dry-run", 1),
        ("ledger",),
        ("cards",),
        ("show", 3),
    ],
    ids=lambda command: " ".join(map(str, (command[0], *command[5:6]))),
)
def test_a_run_at_work_can_be_looked_at_and_nothing_is_mended(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    monkeypatch.chdir(tmp_path)  # for the sheets
    journals = [run / "explanations.jsonl", run / "scores.jsonl"]
    with Ledger(run / "calls.sqlite"):
        for path in journals:
            with path.open("a") as file:
                file.write('{"latent": 3, "lab')  # the other process is just writing this line
        before = [path.read_bytes() for path in journals]
        assert interp(*command, "--run", run) == OK
        assert [path.read_bytes() for path in journals] == before


@pytest.mark.parametrize("stage", ["explain", "score"])
def test_a_second_process_is_refused_also_with_the_local_model(
    run: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "scores.jsonl").unlink()
    if stage == "explain":
        (run / "explanations.jsonl").unlink()
    lock = hold(run / "calls.lock")
    try:
        assert interp(stage, "--run", run, "--model", "local") == USAGE
    finally:
        lock.close()
    assert "is working on the run" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["explain", "score"])
def test_where_nothing_is_pending_no_clip_is_loaded(
    run: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("CLIP was loaded")

    monkeypatch.setattr("interp.pipeline.clip.model._encoder", refuse)
    assert interp(stage, "--run", run, "--model", "local") == OK


def test_a_torn_last_line_is_mended_by_the_stage_that_appends(run: Path) -> None:
    path = run / "explanations.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert interp("explain", "--run", run, "--model", "local") == OK
    assert path.read_bytes() == whole
