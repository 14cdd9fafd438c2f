"""`interp run --best-of` and `--disambiguate`: the best of several names, and equal ones apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from interp.evidence.reader import EvidenceReader
from interp.llm.server.preflight import ASKED
from interp.report.labels import read_labels
from interp.run.results import EXPLANATIONS
from interp.run.run import CANDIDATES, DISAMBIGUATION
from sae.core.errors import OK, USAGE
from sae.core.files import read_jsonl
from tests.support.commands import interp
from tests.support.servers.loopback_answers import Request, chat_body, explain_answer

BEST = ("--best-of", 2)
APART = "--disambiguate"


def run(words: tuple[object, ...], out: Path, *more: object) -> int:
    return interp("run", *words, "--out", out, *more)


def figures(words: tuple[object, ...], out: Path, *more: object) -> dict[str, Any]:
    file = out.with_name("figures.json")
    assert run(words, out, *more, "--json", file) == OK
    return dict(json.loads(file.read_text()))


def test_one_command_collects_images_to_choose_on_and_a_second_one_changes_nothing(
    words, mine, capsys
):
    asked = (*words, "--model", "local", *BEST, APART)
    said = figures(asked, mine, "--from", "collect")
    assert "the best of 2 names each, tell equal names apart" in capsys.readouterr().out
    assert EvidenceReader(mine).info.select
    lines = read_jsonl(mine / EXPLANATIONS)
    chosen = [line for line in lines if len(line["chosen_among"]) > 1]
    assert said["select/n_compared"] == len(chosen) > 0
    n_told = said["apart/1/n_labelled"] + said["apart/1/n_failed"]
    assert n_told == len(read_jsonl(mine / DISAMBIGUATION / EXPLANATIONS))
    capsys.readouterr()
    again = figures(asked, mine)
    assert read_jsonl(mine / EXPLANATIONS) == lines
    assert again["apart/1/n_skipped"] == n_told
    plan = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["explain", "done"] for line in plan)
    assert not figures((*words, "--model", "local", "--best-of", 3), mine, "--estimate")[
        "explain/is_done"
    ]


def test_where_no_images_are_kept_to_choose_on_a_line_says_how_and_all_stays(words, mine, capsys):
    before = (mine / EXPLANATIONS).read_bytes()
    for more in ((), ("--estimate",)):
        assert run((*words, "--model", "local", *BEST), mine, *more) == USAGE
        assert "collect again with --from collect" in capsys.readouterr().err
    assert (mine / EXPLANATIONS).read_bytes() == before


@pytest.fixture
def paid(words, server):
    """Words of a run whose server has one name for all, and others where it is to tell apart."""

    def answer(request: Request) -> tuple[int, Any] | None:
        text = " ".join(request.texts)
        if "second_label" not in text:
            return None
        apart = hashlib.sha256(request.pictures[0].tobytes()).hexdigest()[:6]
        apart = "shape " + "".join(
            chr(ord(sign) + 49) if sign.isdigit() else sign for sign in apart
        )
        label = apart if "given the same name as this one" in text else "one thing"
        return 200, chat_body(request, json.dumps(explain_answer(request) | {"label": label}))

    server.refuse = answer
    where = ("--model", "x/y", "--base-url", server.base_url, "--concurrency", 4)
    return (*words, *where, "--price", "0.1,0.5")


def test_estimate_says_what_is_asked_and_what_comes_on_top_and_nothing_is_paid_twice(
    paid, mine, server, capsys
):
    asked = (*paid, *BEST, APART, "--select-judge", "x/y")
    bound = figures(asked, mine, "--from", "collect", "--estimate")
    said = capsys.readouterr().out
    assert "telling equal names apart comes on top, at most one question a latent" in said
    assert server.requests == []
    made = figures(asked, mine, "--from", "collect")
    n_named = sum("second_label" in " ".join(chat.texts) for chat in server.chats)
    live = len(EvidenceReader(mine).live())
    n_apart = made["apart/1/n_asked"]
    assert n_apart == sum(bool(label) for label in read_labels(mine)["label"]) > 4
    assert n_named == made["explain/n_asked"] * 2 + n_apart
    n_asked = len(server.chats) - len(ASKED)
    assert n_asked - n_apart <= bound["in_all/n_requests"]
    assert bound["explain/n_requests"] > 2 * live  # answers, and their grades on the side select
    assert all(label.startswith("shape ") for label in read_labels(mine)["label"] if label)
    assert set(server.answered.values()) == {1}
    n = len(server.chats)
    assert figures(asked, mine, "--estimate")["in_all/n_requests"] == 0
    again = (mine / EXPLANATIONS).read_bytes()
    assert run(asked, mine) == OK
    assert len(server.chats) == n
    assert (mine / EXPLANATIONS).read_bytes() == again


def test_names_that_are_there_are_told_apart_for_what_the_estimate_says(paid, mine, server):
    assert run(paid, mine, "--from", "explain") == OK
    n = len(server.chats)
    ahead = figures((*paid, APART), mine, "--estimate")
    made = figures((*paid, APART), mine)
    assert ahead["explain/n_requests"] == made["apart/1/n_asked"] > 4
    asked = server.chats[n:]
    assert sum("second_label" in " ".join(chat.texts) for chat in asked) == made["apart/1/n_asked"]


def test_names_that_are_to_be_chosen_anew_are_told_apart_on_top(paid, mine, capsys):
    assert run((*paid, *BEST), mine, "--from", "collect") == OK
    capsys.readouterr()
    assert figures((*paid, "--best-of", 3, APART), mine, "--estimate")["explain/n_requests"] > 0
    assert "telling equal names apart comes on top" in capsys.readouterr().out


def test_from_explain_names_anew_and_keeps_what_was_paid(paid, mine, server):
    assert run((*paid, APART), mine, "--from", "explain") == OK
    n, labels = len(server.chats), (mine / "labels.csv").read_bytes()
    assert run((*paid, APART), mine, "--from", "explain") == OK
    assert len(server.chats) == n
    assert (mine / "labels.csv").read_bytes() == labels
    assert run(paid, mine, "--from", "explain") == OK
    assert not (mine / DISAMBIGUATION).exists()
    assert not (mine / CANDIDATES).exists()
    assert all(label.startswith("one thing") for label in read_labels(mine)["label"] if label)


@pytest.mark.parametrize(
    ("table", "typed", "said"),
    [
        ("", (*BEST, "--model", "local:linear"), "--best-of chooses among names"),
        ("", (APART, "--model", "local:linear"), "tells no labels apart"),
        ("best_of = 3\nbest = 2", ("--model", "local"), "best"),
        ("", (*BEST, "--model", "local"), "select = false"),
    ],
)
def test_what_does_not_go_together_is_one_line_before_any_work(
    words, tmp_path, capsys, table, typed, said
):
    file = Path(str(words[-1]))
    text = file.read_text() + f"[run.explain]\n{table}\n"
    if said == "select = false":
        text = text.replace("[run.collect]", "[run.collect]\nselect = false")
    mine = tmp_path / "run.toml"
    mine.write_text(text)
    assert run((*words[:-1], mine), tmp_path / "run", *typed) == USAGE
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_settings_file_says_it_too(words, mine, tmp_path):
    file = tmp_path / "run.toml"
    text = Path(str(words[-1])).read_text() + "[run.explain]\nbest_of = 3\n"
    file.write_text(text.replace("[run]", "[run]\ndisambiguate = true"))
    said = figures((*words[:-1], file, "--model", "local"), mine, "--from", "collect")
    assert "select/n_compared" in said
    assert "apart/1/n_new" in said
