"""`--from STEP`: what goes, what stays, and that a kill in between leaves a run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from interp.pipeline.workflow.discard import MADE, discard, find_discarded
from interp.pipeline.workflow.names import ORDER
from sae.core.errors import OK, USAGE
from tests.support.commands import interp
from tests.support.interp.killing import run_in_child

LOCAL = ("--model", "local")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.mark.parametrize(
    ("step", "stay"),
    [
        ("embed", {"run.unfinished.json"}),
        ("train", {"run.unfinished.json", "store"}),
        ("collect", {"run.unfinished.json", "store", "sae-trained"}),
        ("explain", {"run.json", "store", "sae", "sae-trained", "collect"}),
        (
            "cards",
            {"run.json", "store", "sae", "sae-trained", "collect"}
            | {"explanations.jsonl", "scores.jsonl", "tasks.jsonl"},
        ),
    ],
)
def test_a_step_and_all_later_ones_go_but_not_what_was_paid_or_said(mine, step, stay) -> None:
    kept = {"calls.sqlite", "verdicts.jsonl"}
    for name in kept:
        (mine / name).write_text("")
    found = find_discarded(mine, step)
    assert discard(mine, step) == found
    assert names(mine) == stay | kept
    assert ((mine / "sae-trained" / "eval.json").exists()) == (step not in ORDER[:4])


def test_a_ledger_inside_a_folder_stays(mine) -> None:
    ledger = mine / "controls" / "untrained" / "calls.sqlite"
    (ledger.parent / "collect").mkdir(parents=True)
    for path in (ledger, ledger.parent / "run.json", ledger.parent / "collect" / "x.parquet"):
        path.write_text("")
    discard(mine, "train")
    assert [p for p in (mine / "controls").rglob("*") if p.is_file()] == [ledger]


def test_a_kill_at_any_file_leaves_a_run_of_first_steps(finished, mine) -> None:
    import shutil

    n = run_in_child(lambda: int(bool(discard(mine, "train")) is False), mine)
    assert n > 10
    places = sorted({0, 1, 2, n // 4, n // 2, 3 * n // 4, n - 2})
    for at in places:
        shutil.rmtree(mine)
        shutil.copytree(finished.out, mine)
        with contextlib.suppress(AssertionError):
            run_in_child(lambda: int(bool(discard(mine, "train")) is False), mine, at)
        left = names(mine)
        assert left & {"run.json", "run.unfinished.json"}
        if "sae-trained" not in left:
            assert "collect" not in left
        if not (mine / "collect" / "collect.json").exists():
            assert "explanations.jsonl" not in left
        discard(mine, "train")
        assert "store" in names(mine)


def test_every_step_has_files_of_its_own() -> None:
    assert set(MADE) == set(ORDER)
    assert all(MADE.values())


def test_a_run_at_work_is_not_thrown_away(mine, words, capsys) -> None:
    from interp.run.run import Run

    held = Run(mine).hold()
    try:
        assert interp("run", *words, *LOCAL, "--from", "cards", "--out", mine) == USAGE
    finally:
        held.close()
    assert "is working on the run" in capsys.readouterr().err
    assert (mine / "labels.csv").exists()


def test_an_estimate_only_says_what_would_go(mine, words, capsys) -> None:
    asked = ("--from", "explain", "--estimate", "--out", mine)
    before = names(mine)
    assert interp("run", *words, *LOCAL, *asked) == OK
    said = capsys.readouterr().out
    assert "would be thrown away: explanations.jsonl, scores.jsonl, tasks.jsonl" in said
    assert "explain  done" not in said
    assert "collect  done" in said
    assert names(mine) == before
    anew = ("--from", "train", "--estimate", "--out", mine)
    assert interp("run", *words, *LOCAL, *anew) == OK
    said = capsys.readouterr().out
    assert [step for step in ("embed", "train", "eval", "collect") if f"{step:<9}done" in said] == [
        "embed"
    ]
