"""`interp score --kind` with a model that is paid: tasks, and checks of the judge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from interp.records.family import is_one_family
from interp.report.labels import read_labels
from interp.run.run import Run
from sae.core.errors import OK, USAGE
from sae.core.files import read_jsonl
from tests.support.commands import interp
from tests.support.servers import loopback_answers
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import COST

KINDS = ("simulate", "intruder", "match")
ASKED = ("--kind", ",".join(("detect", *KINDS)), "--second-judge", "other/judge")
ASKED += ("--latents", "0-6")
SHARES = ("--retest-share", 0.5, "--second-share", 0.5, "--alone-share", 0.1)


@pytest.fixture
def run(label_some: Callable[[int], Path]) -> Path:
    return label_some(4)


def judge(run: Path, server: Loopback, *more: object) -> int:
    price = ("--price", "1,5", "--second-price", "1,5")
    where = ("--run", run, "--model", "x/y", "--base-url", server.base_url)
    return interp("score", *where, *price, *more)


def test_tasks_and_checks_ask_what_the_estimate_says_once_whatever_the_order(
    server, run, tmp_path, capsys
):
    again = Path(shutil.copytree(run, tmp_path / "again"))
    said = tmp_path / "figures.json"
    assert judge(run, server, *ASKED, *SHARES, "--estimate", "--json", said) == OK
    assert server.chats == []
    estimate, told = json.loads(said.read_text()), capsys.readouterr().out
    for stage in ("retest", "alone", "second", *KINDS):
        assert f"score-{stage} with" in told
    assert judge(run, server, *ASKED, *SHARES, "--concurrency", 16, "--json", said) == OK
    asked = [chat for chat in server.chats if "Which colour" not in chat.texts[-1]]
    n_asked = estimate["in_all/n_requests"]  # two latents may ask the same of one image alone
    assert n_asked - 2 <= len({chat.digest for chat in asked}) == len(asked) <= n_asked
    assert estimate["n_requests"] < len(asked)
    figures = json.loads(said.read_text())
    paid = figures["usd"] + sum(v for k, v in figures.items() if k.endswith("/usd"))
    assert paid == pytest.approx(COST * n_asked, rel=0.02)
    for check in ("retest", "alone", "second"):  # it looks at pixels, and each alike
        assert figures[f"{check}/difference"] < 2
    assert figures["one_family"] is False
    n = len(server.chats)
    assert judge(run, server, *ASKED, *SHARES) == OK
    assert len(server.chats) == n
    assert judge(again, server, *ASKED, *SHARES, "--concurrency", 1) == OK
    for name in ("scores.jsonl", "tasks.jsonl"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    abouts = {row["kind"] for row in read_jsonl(run / "tasks.jsonl")}
    assert abouts == {*KINDS, "retest", "alone", "second"}
    _is_shown(run)


def _is_shown(run: Path) -> None:
    table = read_labels(run)
    for latent, row in table.iterrows():
        for kind, task in Run(run).results.tasks_of(latent).items():
            assert row[kind] == pytest.approx(task.value, rel=1e-3, nan_ok=True)
    assert table["intruder"].notna().sum() > 4  # it needs no label
    assert table["simulate"].notna().sum() <= 4
    assert {"simulate_pearson_low", "match_chance", "match_pairs"} <= set(table.columns)
    assert "fuzz" not in table.columns
    assert interp("cards", "--run", run) == OK
    cards = (run / "gallery" / "data" / "c0000.js").read_text(encoding="utf-8")
    assert "the one silent image among active ones was found in" in cards


def test_what_cannot_be_asked_is_said_in_a_line_before_anything_is_paid(server, run, capsys):
    assert judge(run, server, "--kind", "detect,fuzz") == USAGE
    assert "no patches" in capsys.readouterr().err
    assert judge(run, server, "--kind", "detct") == USAGE
    assert "did you mean 'detect'" in capsys.readouterr().err
    assert judge(run, server, "--kind", "match", "--control", "shuffled") == USAGE
    assert judge(run, server, "--second-judge", "x/y") == USAGE
    assert server.chats == []


def test_a_cap_is_over_all_that_one_command_asks(server, run, capsys):
    usd = 0.004  # less than the worst that is reckoned with, so no answer under way passes the cap
    server.usage = lambda _request: {"prompt_tokens": 900, "completion_tokens": 20, "cost": usd}
    assert judge(run, server, "--kind", "simulate", "--max-cost", 10 * usd) != OK
    n = len(server.chats)
    assert judge(run, server, "--kind", "intruder", "--max-cost", 10 * usd) != OK
    assert 8 <= n <= 10
    assert len(server.chats) <= 10


def test_a_judge_that_answers_by_letter_is_complained_about_and_noted(server, run, capsys):
    def by_letter(request):
        codes = loopback_answers.letters_in(
            loopback_answers.re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", request.texts[-1])
        )
        return {code: 10 * place for place, code in enumerate(codes)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loopback_answers, "detect_answer", by_letter)
        assert judge(run, server, "--retest-share", 0.5, "--alone-share", 0) == OK
    said = capsys.readouterr()
    assert "the judge grades by the place of the letter" in said.err
    assert "the judge answers the same when the images stand in the reverse order" in said.err
    notes = [row["note"] for row in read_jsonl(run / "scores.jsonl") if not row["failure"]]
    assert notes
    assert all("the same grades, whatever was shown" in note for note in notes)


def test_explainer_and_judge_of_one_family_are_told(server, run, capsys):
    assert interp("score", "--run", run, "--model", "local") == OK
    assert "of one family" not in capsys.readouterr().out  # its judge may be another CLIP
    assert not is_one_family("local:linear:tiny", "local:tiny-conv")
    assert is_one_family("openai/gpt-5-mini", "gpt-4o")
    where = ("--run", run, "--model", "x/y", "--base-url", server.base_url)
    assert interp("explain", *where, "--price", "1,5", "--latents", "0-3") == OK
    assert judge(run, server, "--latents", "0-3") == OK
    assert "are of one family (x)" in capsys.readouterr().out
