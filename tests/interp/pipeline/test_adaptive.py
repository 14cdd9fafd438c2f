"""`interp score --adaptive`: what it asks, what it says beforehand, what it leaves."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from interp.report.labels import read_labels
from interp.run.run import Run
from sae.core.errors import BUDGET, OK
from sae.core.files import read_jsonl
from tests.support.commands import interp
from tests.support.servers.loopback import Loopback


@pytest.fixture
def run(label_some: Callable[[int], Path]) -> Path:
    return label_some(4)


def judge(run: Path, server: Loopback, *more: object) -> int:
    where = ("--run", run, "--model", "x/y", "--base-url", server.base_url, "--price", "1,5")
    return interp("score", *where, "--adaptive", *more)


def asked(server: Loopback) -> list[str]:
    """Questions about labels, not about colours."""
    return [chat.digest for chat in server.chats if "Which colour" not in chat.texts[-1]]


def test_a_paid_judge_is_asked_between_what_the_estimate_says_and_nothing_twice(
    server, run, tmp_path, capsys
):
    again = Path(shutil.copytree(run, tmp_path / "again"))
    said = tmp_path / "figures.json"
    checks = ("--retest-share", 0, "--alone-share", 0, "--canary-share", 0)
    assert judge(run, server, *checks, "--estimate", "--json", said) == OK
    assert server.chats == []
    estimate, told = json.loads(said.read_text()), capsys.readouterr().out
    assert f"{estimate['n_least']} to {estimate['n_requests']}" in told
    assert 0 < estimate["usd_least"] < estimate["usd"]
    assert judge(run, server, *checks, "--concurrency", 16, "--json", said) == OK
    n = len(asked(server))
    assert estimate["n_least"] <= n == len(set(asked(server))) <= estimate["n_requests"]
    out = capsys.readouterr().out
    assert "adaptive: " in out
    assert "images a label" in out
    figures = json.loads(said.read_text())
    ended = Counter(row["stopped"] for row in read_jsonl(run / "scores.jsonl"))
    assert {k: v for k, v in figures.items() if k.startswith("stopped/")} == {
        f"stopped/{why}": count for why, count in ended.items() if why != "failed"
    }
    assert judge(run, server, *checks) == OK
    assert len(asked(server)) == n
    cap = ("--max-cost", 0.02)
    assert judge(again, server, *checks, *cap, "--concurrency", 1) == BUDGET
    assert n < len(asked(server)) < 2 * n
    assert judge(again, server, *checks, "--concurrency", 1) == OK
    assert len(asked(server)) == 2 * n
    assert (again / "scores.jsonl").read_bytes() == (run / "scores.jsonl").read_bytes()


def test_checks_ask_about_what_is_judged_in_any_case(server, run):
    assert judge(run, server, "--retest-share", 1, "--alone-share", 0.2, "--canary-share", 0) == OK
    scores = {row["latent"]: row for row in read_jsonl(run / "scores.jsonl")}
    for row in read_jsonl(run / "tasks.jsonl"):
        images = {image for trial in row["trials"] for image in trial["shown"]}
        assert images <= {v["image_id"] for v in scores[row["latent"]]["verdicts"]}


def test_a_local_judge_with_controls_and_a_fixed_score_beside_it(run, capsys):
    local = ("score", "--run", run, "--model", "local")
    assert interp(*local) == OK
    assert "labels.csv shows" not in capsys.readouterr().out  # there are no others
    fixed = read_labels(run)
    assert fixed["stopped"].fillna("").eq("").all()
    assert interp(*local, "--adaptive") == OK
    n = int(fixed["auroc"].notna().sum())
    said = capsys.readouterr().out
    assert "adaptive: " in said
    assert f"the newest score of each label: {n} with --adaptive, 0 without" in said
    table = read_labels(run)
    scored = table[table["auroc"].notna()]
    assert set(scored["stopped"]) <= {"decided", "left open", "all images", "no more images"}
    assert scored["supported"].ne("").all()
    assert scored["auroc_low"].lt(scored["auroc"] + 1e-9).all()
    lines = (run / "scores.jsonl").read_bytes()
    assert interp(*local, "--adaptive") == OK
    capsys.readouterr()
    assert interp(*local) == OK  # says what it found before, which is not what labels.csv shows
    assert f"{n} with --adaptive, 0 without" in capsys.readouterr().out
    assert (run / "scores.jsonl").read_bytes() == lines
    assert interp(*local, "--adaptive", "--control", "shuffled") == OK
    ended = [line.score for line in Run(run).results.score_lines if line.score.control]
    assert ended
    assert all(score.stopped for score in ended)
