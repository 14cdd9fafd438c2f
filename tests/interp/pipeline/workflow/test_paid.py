"""`interp run` with a model that has to be paid: the estimate, one cap, and going on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from interp.evidence.reader import EvidenceReader
from interp.llm.ledger.report import overall
from interp.llm.server.preflight import ASKED
from interp.report.labels import read_labels
from sae.core.errors import BUDGET, OK, USAGE
from tests.interp.pipeline.workflow.conftest import SETTINGS
from tests.support.commands import interp
from tests.support.servers.loopback_answers import COST

PRICED = ("--price", "0.1,0.5")


@pytest.fixture
def paid(words, server):
    """Words of a run that asks the loopback server."""
    return (*words, "--model", "x/y", "--base-url", server.base_url, "--concurrency", 4, *PRICED)


def estimated(words: tuple[object, ...], out: Path, file: Path) -> dict[str, float]:
    assert interp("run", *words, "--out", out, "--estimate", "--json", file) == OK
    return dict(json.loads(file.read_text()))


def test_the_plan_has_a_bound_and_later_what_is_left_and_labels_made_anew_cost_nothing(
    paid, mine, server, tmp_path, capsys
) -> None:
    bound = estimated(paid, tmp_path / "new", tmp_path / "bound.json")
    said = capsys.readouterr().out
    assert "explain" in said
    assert "at most 8 latents: at most 8 requests" in said
    assert "every latent of the SAE is counted" in said
    assert not (tmp_path / "new").exists()
    known = estimated((*paid, "--from", "explain"), mine, tmp_path / "known.json")
    assert "every latent of the SAE is counted" not in capsys.readouterr().out
    assert server.requests == []
    assert (bound["explain/is_bound"], known["explain/is_bound"]) == (True, False)
    live = len(EvidenceReader(mine).live())
    assert known["explain/n_requests"] <= live <= bound["explain/n_requests"] == 8
    assert interp("run", *paid, "--from", "explain", "--out", mine) == OK
    n_asked = len(server.chats) - len(ASKED)
    assert n_asked <= known["in_all/n_requests"] <= bound["in_all/n_requests"]
    assert known["in_all/usd"] <= bound["in_all/usd"] <= bound["in_all/usd_at_most"]
    assert estimated(paid, mine, tmp_path / "done.json")["in_all/n_requests"] == 0
    labels, n_asked = (mine / "labels.csv").read_bytes(), len(server.chats)
    assert interp("run", *paid, "--from", "explain", "--out", mine) == OK
    assert "what was paid stays in calls.sqlite" in capsys.readouterr().out
    assert len(server.chats) == n_asked
    assert (mine / "labels.csv").read_bytes() == labels


def test_one_cap_holds_for_all_steps_and_a_higher_one_goes_on_without_paying_twice(
    paid, mine, server, capsys
) -> None:
    assert (
        interp("run", *paid, "--from", "explain", "--max-cost", 5 * COST, "--out", mine) == BUDGET
    )
    assert "--max-cost 0.005 is reached" in capsys.readouterr().err
    assert overall(mine / "calls.sqlite").usd <= 5.1 * COST
    assert interp("run", *paid, "--max-cost", 18 * COST, "--out", mine) == BUDGET
    spent = overall(mine / "calls.sqlite")
    assert spent.usd <= 18.1 * COST
    assert spent.usd > 11 * COST  # scoring had begun: its cost and that of explaining count as one
    assert interp("run", *paid, "--max-cost", 5, "--out", mine) == OK
    assert set(server.answered.values()) == {1}
    said = capsys.readouterr().out
    paid_for = overall(mine / "calls.sqlite")
    assert f"{paid_for.n_calls} answers cost ${paid_for.usd:.2f} of the $5 that it may" in said
    assert (read_labels(mine)["explainer"] == "x/y").sum() > 4
    server.requests.clear()
    assert interp("run", *paid, "--max-cost", 5, "--out", mine) == OK
    assert server.requests == []


def test_a_model_that_is_not_there_ends_before_any_work(paid, server, tmp_path, capsys) -> None:
    server.models = ("x/yy",)
    out = tmp_path / "run"
    assert interp("run", *paid, "--out", out) == USAGE
    assert "did you mean 'x/yy'" in capsys.readouterr().err
    assert not out.exists()


def test_a_second_judge_that_is_not_there_ends_before_any_work(
    paid, server, tmp_path, capsys
) -> None:
    server.models = ("x/y", "x/zz")
    file, out = tmp_path / "second.toml", tmp_path / "run"
    file.write_text(SETTINGS + '[run.score]\nsecond_judge = "x/z"\n', encoding="utf-8")
    assert interp("run", *paid, "--config", file, "--out", out) == USAGE
    assert "did you mean 'x/zz'" in capsys.readouterr().err
    assert not out.exists()


def test_without_a_key_nothing_is_begun(words, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    out = tmp_path / "run"
    assert interp("run", *words, "--model", "x/y", "--out", out) == USAGE
    assert "OPENROUTER_API_KEY is not set" in capsys.readouterr().err
    assert not out.exists()


def test_another_judge_grades(words, mine, server, capsys) -> None:
    asked = ("--model", "x/y", "--judge", "local", "--base-url", server.base_url, *PRICED)
    assert interp("run", *words, *asked, "--from", "explain", "--out", mine) == OK
    labels = read_labels(mine)
    scored = labels[labels["auroc"] > 0]
    assert set(scored["explainer"]) == {"x/y"}
    assert all(re.match("local:", scorer) for scorer in scored["scorer"])
    assert not [one for one in server.chats if "grade" in " ".join(one.texts).lower()]
