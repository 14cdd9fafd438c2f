"""`interp explain --best-of`: several labels of a latent, chosen among on images of their own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from interp.pipeline.best_of.choose import LEAD
from interp.pipeline.best_of.settings import BestOfSettings
from interp.pipeline.best_of.stages import BestOf
from interp.pipeline.settings import ModelSettings
from interp.report.labels import read_labels
from interp.run.results import EXPLANATIONS, SCORES
from interp.run.run import CANDIDATES, Run
from sae.core.errors import BUDGET, OK, USAGE, UserError
from sae.core.files import read_jsonl
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import (
    COLOURS,
    Request,
    chat_body,
    explain_answer,
)

LOCAL = ("--model", "local")
BEST = ("--best-of", 3)


@pytest.fixture(scope="module")
def three_sided(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a side select. Read-only: copy what you change."""
    folder = tmp_path_factory.mktemp("select")
    (folder / "store").symlink_to(walk.store)
    words = ("--run", folder / "run", "--dense-above", 0.9, "--select")
    assert interp("collect", walk.sae, folder / "store", *words) == OK
    return folder / "run"


@pytest.fixture
def run(three_sided: Path, walk: Walk, tmp_path: Path) -> Path:
    """One of one's own beside the store."""
    (tmp_path / "store").symlink_to(walk.store)
    return Path(shutil.copytree(three_sided, tmp_path / "run"))


@pytest.fixture
def server():
    with Loopback() as loopback:
        loopback.refuse = _name_by_chance
        yield loopback


def _name_by_chance(request: Request) -> tuple[int, dict[str, object]] | None:
    """Another label for nearly every question about other images; grades follow from the label."""
    if "second_label" not in " ".join(request.texts):
        return None
    colour = [*COLOURS][int(request.digest, 16) % len(COLOURS)]
    answer = {**explain_answer(request), "label": f"a {colour} area", "verdict": "single"}
    return 200, chat_body(request, json.dumps(answer))


def paid(server: Loopback, run: Path, *more: object) -> tuple[object, ...]:
    words = ("--model", "x/y", "--base-url", server.base_url, "--price", "1,2", "--run", run)
    return ("explain", *words, "--latents", "0-5", *BEST, *more)


def journal(run: Path) -> dict[str, bytes]:
    files = (EXPLANATIONS, f"{CANDIDATES}/{EXPLANATIONS}", f"{CANDIDATES}/{SCORES}")
    return {name: (run / name).read_bytes() for name in files}


def test_the_name_that_does_best_on_the_side_select_stands_and_the_others_are_no_labels(run):
    assert interp("explain", *LOCAL, "--run", run) == OK
    first = {line["latent"]: line for line in read_jsonl(run / EXPLANATIONS)}
    assert interp("explain", *LOCAL, *BEST, "--run", run) == OK
    lines = read_jsonl(run / EXPLANATIONS)[len(first) :]
    assert len({line["latent"] for line in lines}) == len(lines) == len(first)
    compared = [line for line in lines if line["chosen_among"]]
    assert len(compared) > 5
    for line in compared:
        among = line["chosen_among"]
        assert [one["label"] for one in among] == first[line["latent"]]["candidates"][:3]
        known = [one["auroc"] for one in among if one["auroc"] is not None]
        if not known:
            continue
        own = next(one for one in among if one["label"] == line["label"])
        is_best = own["auroc"] == max(known)
        assert is_best or (own == among[0] and max(known) - own["auroc"] <= LEAD)
        how = "best of 3" if is_best else "first of 3, which none leads by .15,"
        assert line["provenance"].startswith(f"{how} by AUROC on the select side: ")
    assert any(line["label"] != line["chosen_among"][0]["label"] for line in compared)
    for line in lines:
        if not line["chosen_among"]:
            assert line["second_label"] or line["label"] == first[line["latent"]]["label"]
    labels = read_labels(run).set_index("latent_id")["label"]
    assert {n: labels[n].split(" (")[0] for n in first} == {e["latent"]: e["label"] for e in lines}


def test_no_image_of_the_side_select_is_shown_or_tests_a_label(run):
    assert interp("explain", *LOCAL, *BEST, "--run", run) == OK
    assert interp("score", *LOCAL, "--run", run) == OK
    examples = Run(run).evidence.examples
    side = dict(zip(examples["image_id"], examples["side"], strict=True))
    shown = [line["codes"].values() for line in read_jsonl(run / CANDIDATES / EXPLANATIONS)]
    assert {side[image] for images in shown for image in images} == {"explain"}
    lines = read_jsonl(run / EXPLANATIONS)
    assert {side[image] for line in lines for image in line["chosen_on"]} == {"select"}
    for name, where in ((CANDIDATES, "select"), (".", "score")):
        verdicts = [v for s in read_jsonl(run / name / SCORES) for v in s["verdicts"]]
        assert {side[verdict["image_id"]] for verdict in verdicts} == {where}
    grades = [s["verdicts"] for s in read_jsonl(run / CANDIDATES / SCORES)]
    assert 16 < max(map(len, grades)) <= 64


def test_what_is_done_is_not_done_again_and_a_limit_comes_to_the_same(run, three_sided):
    assert interp("explain", *LOCAL, *BEST, "--run", run) == OK
    whole = journal(run)
    assert interp("explain", *LOCAL, *BEST, "--run", run) == OK
    assert journal(run) == whole
    other = Path(shutil.copytree(three_sided, run.with_name("other")))
    assert interp("explain", *LOCAL, *BEST, "--run", other, "--limit", 4) == OK
    assert len(read_jsonl(other / EXPLANATIONS)) == 4
    assert interp("explain", *LOCAL, *BEST, "--run", other) == OK
    assert journal(other) == whole


def test_more_names_than_the_namer_usually_gives_are_compared(run):
    assert interp("explain", *LOCAL, "--best-of", 8, "--run", run, "--latents", "0-4") == OK
    lines = read_jsonl(run / EXPLANATIONS)
    assert {len(line["candidates"]) for line in lines} == {8}
    assert max(len(line["chosen_among"]) for line in lines) == 8


def test_evidence_without_the_side_is_refused_with_the_next_command(walk, tmp_path, capsys):
    (tmp_path / "store").symlink_to(walk.store)
    two = shutil.copytree(walk.run, tmp_path / "two")
    assert interp("explain", *LOCAL, *BEST, "--run", two) == USAGE
    said = capsys.readouterr().err
    assert f"`interp collect SAE STORE --run {two} --select --overwrite`" in said
    assert not (two / CANDIDATES).exists()


def test_n_questions_a_latent_are_estimated_asked_and_paid_once(run, server, tmp_path, capsys):
    command = paid(server, run, "--select-judge", "x/y")
    assert interp(*command, "--estimate", "--json", tmp_path / "e.json") == OK
    assert interp(*command, "--dry-run", 2) == OK
    assert server.chats == []
    capsys.readouterr()
    assert interp(*command) == OK
    live = capsys.readouterr().err
    n_labels = len(read_jsonl(run / CANDIDATES / SCORES))
    assert f"select: {n_labels}/{n_labels} labels" in live  # several of a latent
    assert "explain, 1 of 3: 6/6 latents" in live
    calls = _calls(run, tmp_path)
    stages = Counter(call["about"].split()[0] for call in calls)
    told = json.loads((tmp_path / "e.json").read_text())
    asked = {line["latent"] for line in read_jsonl(run / EXPLANATIONS) if line["calls"]}
    assert told["explain/n_requests"] == stages["explain"] == 3 * len(asked) > 6
    assert told["select/n_requests"] >= stages["select"] > 0
    keys = [call["key"] for call in calls]
    assert len(set(keys)) == len(keys)
    assert sum(len(line["calls"]) for line in read_jsonl(run / EXPLANATIONS)) == (
        stages["explain"] + stages["select"]
    )
    grades = [s["verdicts"] for s in read_jsonl(run / CANDIDATES / SCORES)]
    assert 10 <= max(map(len, grades)) <= 16
    n_chats = len(server.chats)
    assert interp(*command) == OK
    assert interp(*command, "--best-of", 2) == OK  # of these labels two are enough
    assert len(server.chats) == n_chats


def _calls(run: Path, tmp_path: Path) -> list[dict]:
    assert interp("ledger", "--run", run, "--export", tmp_path / "calls.jsonl") == OK
    return read_jsonl(tmp_path / "calls.jsonl")


def test_one_worker_and_sixteen_write_the_same_bytes_and_the_local_judge_is_free(
    run, server, three_sided, tmp_path
):
    assert interp(*paid(server, run, "--concurrency", 1)) == OK
    assert {call["about"].split()[0] for call in _calls(run, tmp_path)} == {"explain", "preflight"}
    other = Path(shutil.copytree(three_sided, run.with_name("other")))
    assert interp(*paid(server, other, "--concurrency", 16)) == OK
    assert journal(other) == journal(run)
    several = [line for line in read_jsonl(run / EXPLANATIONS) if line["chosen_among"]]
    assert several
    assert all(len(line["chosen_among"]) == 3 for line in several)


def test_a_stop_in_the_middle_costs_nothing_that_was_paid(run, server, three_sided):
    """The cap is reached among the answers; without it the rest is asked, and no more."""
    other = Path(shutil.copytree(three_sided, run.with_name("other")))
    assert interp(*paid(server, other)) == OK
    n_whole = len(server.chats)
    server.requests.clear()
    assert interp(*paid(server, run, "--max-cost", 0.02, "--concurrency", 1)) == BUDGET
    n_first = len(server.chats)
    assert 3 < n_first < n_whole
    assert not (run / EXPLANATIONS).exists()
    assert interp(*paid(server, run)) == OK
    assert len(server.chats) == n_whole
    assert journal(run) == journal(other)


def test_another_number_or_judge_is_another_choice(three_sided):
    run, settings = Run(three_sided), ModelSettings(model="local")
    made = [
        BestOf(run, BestOfSettings(best_of=n, select_judge=judge), settings, [0]).by.prompt
        for n, judge in ((2, "local"), (3, "local"), (3, "a/b"))
    ]
    assert len(set(made)) == 3
    with pytest.raises(UserError, match="local:linear fits one explanation"):
        BestOf(run, BestOfSettings(best_of=2), ModelSettings(model="local:linear"), [0])
    with pytest.raises(UserError, match="costs nothing"):
        BestOf(run, BestOfSettings(best_of=2), settings, [0]).estimates()
