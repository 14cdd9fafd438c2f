"""`--part` and `interp ledger merge`: several machines share one run's paid work."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from interp.llm.ledger import merge as ledger_merge
from interp.llm.ledger.merge import Taken, take_calls
from interp.llm.ledger.report import overall, sum_unanswered
from interp.run.run import Run
from sae.core.errors import INTERRUPTED, OK, USAGE
from sae.core.files import append_jsonl, read_jsonl
from tests.support.commands import Walk, interp
from tests.support.interp.killing import run_in_child
from tests.support.servers.loopback import Loopback

N_PARTS = 2


class Shared(NamedTuple):
    """A run whose parts were explained and scored; read-only: copy what you change."""

    at: Path
    server: Loopback

    @property
    def run(self) -> Path:
        return self.at / "run"

    @property
    def parts(self) -> list[Path]:
        return [self.at / f"part{n}" for n in range(1, N_PARTS + 1)]


@pytest.fixture(scope="module")
def shared(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    at = tmp_path_factory.mktemp("parts")
    for name in ("store", "world"):
        (at / name).symlink_to(getattr(walk, name))
    with Loopback() as server:
        made = Shared(at, server)
        for folder in (made.run, *made.parts):
            shutil.copytree(walk.run, folder)
        for number, part in enumerate(made.parts, 1):
            words = (*asked(server, part), "--part", f"{number}/{N_PARTS}")
            assert interp("explain", *words) == OK
            assert interp("score", *words, "--kind", "detect,intruder") == OK
        server.requests.clear()
        yield made


@pytest.fixture
def copied(shared: Shared, tmp_path: Path) -> Shared:
    """The same in folders of one's own."""
    at = Path(shutil.copytree(shared.at, tmp_path / "parts", symlinks=True))
    shared.server.requests.clear()
    return shared._replace(at=at)


def asked(server: Loopback, run: Path) -> tuple[object, ...]:
    return ("--model", "x/y", "--base-url", server.base_url, "--concurrency", 4, "--run", run)


def merge(on: Shared) -> int:
    return interp("ledger", "merge", *on.parts, "--run", on.run)


def lines(run: Path) -> dict[str, Counter[str]]:
    """The lines of each journal, however often each is there."""
    return {
        str(file.relative_to(run)): Counter(map(json.dumps, read_jsonl(file)))
        for file in sorted(run.rglob("*.jsonl"))
    }


def rows(run: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{run / 'calls.sqlite'}?mode=ro", uri=True) as calls:
        assert calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        risked = calls.execute("SELECT key, about, usd, known FROM risked ORDER BY 1, 2").fetchall()
        return [*calls.execute("SELECT * FROM calls ORDER BY key"), *risked]


def test_every_latent_is_in_one_part_whatever_is_done(shared: Shared) -> None:
    worked_on = [{line["latent"] for line in read_jsonl(p / "scores.jsonl")} for p in shared.parts]
    live = {*Run(shared.run).evidence.live()}
    assert worked_on[0] | worked_on[1] == live
    assert not worked_on[0] & worked_on[1]
    assert {n % N_PARTS for n in worked_on[0]} == {0}


def test_a_merged_run_has_all_that_was_paid_and_asks_nothing_again(
    copied: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [lines(part) for part in copied.parts]
    paid = [overall(part / "calls.sqlite") for part in copied.parts]
    assert merge(copied) == OK
    assert "2 questions were paid for in several parts" in capsys.readouterr().out
    assert lines(copied.run) == {name: before[0][name] + before[1][name] for name in before[0]}
    for words in (("explain",), ("score", "--kind", "detect,intruder")):
        assert interp(*words, *asked(copied.server, copied.run)) == OK
    assert copied.server.requests == []
    whole, lost = overall(copied.run / "calls.sqlite"), sum_unanswered(copied.run / "calls.sqlite")
    assert whole.n_calls == sum(part.n_calls for part in paid) - 2  # what a preflight asks
    all_usd = whole.usd + sum(each.usd for each in lost)
    assert math.isclose(all_usd, sum(part.usd for part in paid))
    assert (copied.run / "labels.csv").exists()
    settings = Run(copied.run).info.settings
    assert {"explain", "score"} <= set(settings)


def test_merging_again_changes_nothing(copied: Shared) -> None:
    assert merge(copied) == OK
    first = (lines(copied.run), rows(copied.run))
    assert merge(copied) == OK
    assert (lines(copied.run), rows(copied.run)) == first


def test_a_part_that_goes_on_after_a_merge_is_merged_again(copied: Shared) -> None:
    late = copied.parts[1] / "explanations.jsonl"
    whole = read_jsonl(late)
    late.write_text("".join(f"{json.dumps(line)}\n" for line in whole[:-2]), encoding="utf-8")
    assert merge(copied) == OK
    append_jsonl(late, whole[-2:])
    assert merge(copied) == OK
    written = [line["latent"] for line in read_jsonl(copied.run / "explanations.jsonl")]
    assert len(written) == len(set(written))
    assert written[-2:] == [line["latent"] for line in whole[-2:]]


@pytest.mark.slow
def test_a_merge_that_is_killed_at_any_write_is_finished_by_the_same_command(
    copied: Shared, tmp_path: Path
) -> None:
    untouched = Path(shutil.copytree(copied.run, tmp_path / "untouched"))
    n_events = run_in_child(lambda: merge(copied), copied.run)
    wanted = (lines(copied.run), rows(copied.run))
    assert n_events >= 5
    for kill_at in range(n_events):
        shutil.rmtree(copied.run)
        shutil.copytree(untouched, copied.run)
        run_in_child(lambda: merge(copied), copied.run, kill_at)
        assert merge(copied) == OK, kill_at
        assert (lines(copied.run), rows(copied.run)) == wanted, kill_at


def test_half_a_transaction_of_answers_is_taken_in_by_the_next_merge(
    copied: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_merge, "_AT_ONCE", 3)

    batches = iter(range(3))

    def stop_later(calls: sqlite3.Connection, rows: list[tuple[object, ...]]) -> Taken:
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return take_calls(calls, rows)

    with monkeypatch.context() as patched:
        patched.setitem(ledger_merge.TABLES, "calls", stop_later)
        assert merge(copied) == INTERRUPTED
    assert 0 < overall(copied.run / "calls.sqlite").n_calls <= 9
    assert not (copied.run / "explanations.jsonl").exists()
    assert merge(copied) == OK
    assert len(read_jsonl(copied.run / "explanations.jsonl")) == len(
        {*Run(copied.run).evidence.live()}
    )


def test_two_parts_that_asked_about_one_latent_are_refused_before_a_line_is_written(
    copied: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (part / "explanations.jsonl" for part in copied.parts)
    line = read_jsonl(first)[0]
    append_jsonl(second, [{**line, "label": "something else", "failure": None}])
    assert merge(copied) == USAGE
    error = capsys.readouterr().err
    assert f"{second} says of latent {line['latent']} something else" in error
    assert len(error.splitlines()) == 1
    assert not (copied.run / "explanations.jsonl").exists()


def test_runs_that_are_no_parts_are_refused_in_one_line(
    copied: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*parts: Path) -> str:
        assert interp("ledger", "merge", *parts, "--run", copied.run) == USAGE
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    part = copied.parts[0]
    assert "named twice" in refused(part, copied.run)
    assert "named twice" in refused(part, part)
    assert (
        "no run.json" in refused(copied.at / "nothing")
        or "does not exist" in capsys.readouterr().err
    )
    info = json.loads((part / "run.json").read_text())
    for name, what in (("sae_identity", "SAE"), ("store_identity", "store")):
        (part / "run.json").write_text(json.dumps({**info, name: "f" * 64}))
        assert f"the run of another {what}" in refused(part)
    (part / "run.json").write_text(json.dumps(info))
    collected = json.loads((part / "collect" / "collect.json").read_text())
    (part / "collect" / "collect.json").write_text(json.dumps({**collected, "n_top": 3}))
    assert "its n_top is 3" in refused(part)
    assert not (copied.run / "calls.sqlite").exists()


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_is_refused(
    shared: Shared, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    words = ("--model", "local", "--run", shared.run, f"--part={text}")
    assert interp("explain", *words) == USAGE
    assert "write --part 3/8" in capsys.readouterr().err
