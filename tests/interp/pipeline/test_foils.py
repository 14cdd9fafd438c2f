"""`interp score` with a paid judge of known rates: foils in its questions, and canaries."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from interp.records.split import split_of
from interp.records.support import Support, find_support
from interp.records.types import SIDES, Side
from interp.run.run import Run
from interp.score.nulls.foils import LEAST_LATENTS
from sae.core.errors import OK, USAGE
from sae.core.files import read_jsonl
from sae.data.sources.folders import ImageFile
from tests.support.commands import interp
from tests.support.interp.synthetic_run import (
    explanation,
    make_evidence,
    make_images,
    write_run,
)
from tests.support.servers.coded_vlm import CodedVlm, draw_number
from tests.support.servers.loopback import Loopback
from tests.support.unchanged import unchanged

NAMES = (
    "anchor banjo candle desert engine feather garlic hammer island jacket kettle lantern "
    "magnet needle orchid pepper quartz ribbon saddle tunnel urchin velvet walnut zipper"
)
WORDS = NAMES.split()
N, N_EACH = len(WORDS), 70
N_ACTIVE = 24
"""On either side, of each word."""
N_RIGHT = N - 3
N_FEW = 12
FEW = ("--latents", f"0-{N_FEW - 1}")
"""Enough where it is counted what is asked, and not which labels are supported."""
LABELS = [*WORDS[:N_RIGHT], *WORDS[1:3], "an interesting picture"]
"""By latent: right, of another latent, of nothing."""


def is_true(label: str, number: int) -> bool:
    return WORDS[(number >> 1) // N_EACH] == label


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latent n answers to pictures of WORDS[n]."""
    folder = tmp_path_factory.mktemp("foils")

    def paint(_domain: str, word: str, number: int) -> Any:
        return draw_number((WORDS.index(word) * N_EACH + number) << 1)

    drawn = make_images(folder, ("sketch",), N_EACH, paint, WORDS)
    sides = ((word, side) for word in WORDS for side in SIDES)
    images = [one for of in sides for one in [e for e in drawn if _is_of(e, *of)][:N_ACTIVE]]
    evidence = make_evidence(folder, images, N)
    said = [explanation(n, label, description="") for n, label in enumerate(LABELS)]
    write_run(folder / "run", folder, images, evidence, said)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return copy(made, tmp_path)


def _is_of(image: tuple[str, ImageFile], word: str, side: Side) -> bool:
    return image[1].label == word and split_of(image[0]) == side


def copy(made: Path, to: Path) -> Path:
    to.mkdir(exist_ok=True)
    for name in ("sketch", "store"):
        (to / name).symlink_to(made / name)
    return Path(shutil.copytree(made / "run", to / "run"))


@pytest.fixture
def vlm() -> CodedVlm:
    return CodedVlm(is_true, 0.95, 0.05)


@pytest.fixture
def server(vlm: CodedVlm) -> Iterator[Loopback]:
    with Loopback(refuse=vlm) as loopback:
        yield loopback


def judge(run: Path, server: Loopback, *more: object) -> int:
    where = ("--run", run, "--model", "fake/vision", "--base-url", server.base_url)
    return interp("score", *where, "--layout", "grid", "--price", "1,4", *more)


class Judged(NamedTuple):
    """A run that a judge of the known rates is through with. Read-only."""

    run: Path
    figures: dict[str, Any]
    """Of --json."""
    said: str
    """What was printed."""
    n_with_foils: int


@pytest.fixture(scope="module")
def judged(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    run, said = copy(made, tmp_path_factory.mktemp("judged")), io.StringIO()
    figures = run.with_name("figures.json")
    with Loopback(refuse=CodedVlm(is_true, 0.95, 0.05)) as server, redirect_stdout(said):
        assert judge(run, server, "--json", figures) == OK
        n_with_foils = with_foils(server)
    with unchanged(run):
        yield Judged(run, json.loads(figures.read_text()), said.getvalue(), n_with_foils)


def support_of(run: Path) -> dict[int, Support]:
    results = Run(run).results
    scores = [line.score for line in results.score_lines]
    return find_support(results.newest_explanations(), scores)


def with_foils(server: Loopback) -> int:
    return sum("rule_2: <<<" in " ".join(chat.texts) for chat in server.chats)


def test_good_labels_are_supported_and_shuffled_or_generic_ones_are_not(judged: Judged) -> None:
    found, figures = support_of(judged.run), judged.figures
    right, wrong = [[found[n].state for n in part] for part in (range(N_RIGHT), range(N_RIGHT, N))]
    assert right.count("supported") >= 0.8 * N_RIGHT
    assert "supported" not in wrong
    assert figures["n_supported"] == right.count("supported")
    assert figures["n_others"] == 3 * LEAST_LATENTS
    assert figures["nulls/shuffled"] == pytest.approx(0.5, abs=0.02)
    assert figures["retest/foil_shift"] == 0
    assert figures["canary/passed"] == 1
    assert "with foils in the question a grade is 0.0 points higher" in judged.said
    assert f"only {3 * LEAST_LATENTS} other labels were there to rank with" in judged.said
    assert "100.0% passed" in judged.said
    kept = [row["nulls"] for row in read_jsonl(judged.run / "scores.jsonl") if row["nulls"]]
    assert len(kept) == LEAST_LATENTS == judged.n_with_foils / 4
    assert {null["how"] for null in kept} == {"foils"}
    assert all(one["kind"] == "shuffled" for null in kept for one in null["nulls"])


def test_nothing_is_paid_twice_whatever_is_at_work_and_the_estimate_counts_it(
    run: Path, server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "estimate.json"
    assert judge(run, server, *FEW, "--estimate", "--json", said) == OK
    assert server.chats == []
    estimate, told = json.loads(said.read_text()), capsys.readouterr().out
    assert (
        f"of it for nulls: labels of other latents in {4 * N_FEW} requests on {N_FEW} latents"
        in told
    )
    assert "nulls and checks of the judge (+" in told
    assert judge(run, server, *FEW, "--limit", 4, "--concurrency", 16) == OK
    assert judge(run, server, *FEW, "--concurrency", 16) == OK
    asked = [chat for chat in server.chats if "Which colour" not in chat.texts[-1]]
    n_asked = estimate["in_all/n_requests"]
    assert len({chat.digest for chat in asked}) == len(asked) == n_asked
    assert with_foils(server) == estimate["score-foils/n_requests"]
    n, written = len(server.chats), (run / "tasks.jsonl").read_bytes()
    assert judge(run, server, *FEW) == OK
    assert len(server.chats) == n
    assert (run / "tasks.jsonl").read_bytes() == written


@pytest.mark.slow
def test_one_question_at_a_time_writes_the_same_bytes(
    made: Path, run: Path, server: Loopback, tmp_path: Path
) -> None:
    assert judge(run, server, "--limit", 7, "--concurrency", 16) == OK
    assert judge(run, server, "--concurrency", 16) == OK
    other = copy(made, tmp_path / "one")
    assert judge(other, server, "--limit", 7, "--concurrency", 1) == OK
    assert judge(other, server, "--concurrency", 1) == OK
    for name in ("scores.jsonl", "tasks.jsonl", "labels.csv"):
        assert (other / name).read_bytes() == (run / name).read_bytes()


def test_without_nulls_questions_are_what_they_were_and_foils_come_on_top(
    run: Path, server: Loopback, tmp_path: Path
) -> None:
    assert judge(run, server, *FEW, "--nulls", "none", "--canary-share", 0) == OK
    assert with_foils(server) == 0
    assert support_of(run) == {}
    n = len(server.chats)
    assert judge(run, server, *FEW) == OK
    more = server.chats[n:]
    assert with_foils(server) == 4 * N_FEW  # the others' answers are valid still
    canaries = sum("<<<solid black triangle>>>" in " ".join(chat.texts) for chat in more)
    assert len(more) == 4 * N_FEW + canaries
    assert len(support_of(run)) == N_FEW
    assert judge(run, server, *FEW, "--nulls", "none") == OK
    assert len(server.chats) == n + len(more)


def test_foils_without_grades_and_refusals_do_the_label_no_harm(
    made: Path, judged: Judged, vlm: CodedVlm, server: Loopback, tmp_path: Path
) -> None:
    whole = support_of(judged.run)
    vlm.silent, vlm.refused = frozenset(WORDS[:8]), frozenset(WORDS[8:9])
    other = copy(made, tmp_path / "other")
    assert judge(other, server, "--max-failures", 1) == OK
    scores = {row["latent"]: row for row in read_jsonl(other / "scores.jsonl")}
    before = {row["latent"]: row for row in read_jsonl(judged.run / "scores.jsonl")}
    for latent in set(scores) - {8}:
        assert scores[latent]["auroc"] == before[latent]["auroc"]
        assert scores[latent]["n_missing"] == 0
    silent = [scores[n]["nulls"] for n in range(8) if scores[n]["nulls"]]
    assert silent
    assert all(one["nulls"] == [] for one in silent)
    found = support_of(other)
    assert found[8].state == "undecided"
    n_good = sum(found[n].state == "supported" for n in range(N_RIGHT) if n != 8)
    assert n_good >= sum(one.state == "supported" for one in whole.values()) - 3
    n = len(server.chats)
    assert judge(other, server, "--max-failures", 1) == OK
    assert len(server.chats) == n  # what has no foils is not asked again


def test_foils_that_move_the_labels_own_grades_are_complained_about(
    run: Path, vlm: CodedVlm, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    vlm.pull = 9
    assert judge(run, server, *FEW, "--foil-share", 1, "--retest-share", 0.25) == OK
    said = capsys.readouterr()
    assert "with foils in the question a grade is 9.0 [9.0, 9.0] points higher" in said.out
    assert "foils in a question change the label's own grades by +9.0 points" in said.err


@pytest.mark.parametrize("fault", [{"slip": 1}, {"blind": True}])
def test_a_judge_that_slips_by_a_letter_or_does_not_look_fails_the_canaries(
    run: Path,
    vlm: CodedVlm,
    server: Loopback,
    capsys: pytest.CaptureFixture[str],
    fault: dict[str, int],
) -> None:
    for name, value in fault.items():
        setattr(vlm, name, value)
    kept = (*FEW, "--nulls", "none", "--retest-share", 0, "--alone-share", 0)
    assert judge(run, server, *kept, "--canary-share", 0.25) == OK
    found = re.search(rf"the judge failed (\d+) of {N_FEW} canaries", capsys.readouterr().err)
    assert found
    assert int(found.group(1)) >= 0.9 * N_FEW


def test_a_run_of_ten_latents_has_a_canary_and_a_share_of_nought_none(
    run: Path, server: Loopback
) -> None:
    some = ("--latents", ",".join(map(str, range(11))), "--nulls", "none")
    assert judge(run, server, *some, "--canary-share", 0.0001) == OK
    (line,) = [row for row in read_jsonl(run / "tasks.jsonl") if row["kind"] == "canary"]
    (trial,) = line["trials"]
    assert sum(shown.startswith("canary-") for shown in trial["shown"]) == 2
    assert sum(trial["truth"]) == 1
    n = len(server.chats)
    assert judge(run, server, *some, "--canary-share", 0) == OK
    assert len(server.chats) == n


def test_nulls_that_a_judge_cannot_grade_are_refused(
    run: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(run, server, "--nulls", "foil") == USAGE
    assert "one of foils, none" in capsys.readouterr().err
    assert interp("score", "--run", run, "--model", "local", "--nulls", "foils") == USAGE
    assert "for a judge that is paid" in capsys.readouterr().err
    assert server.chats == []


KEPT = (*FEW, "--nulls", "none", "--retest-share", 0, "--alone-share", 0, "--canary-share", 0.1)


def moments(server: Loopback) -> list[str]:
    """What was asked in turn, one letter a question: a canary or a label."""
    texts = [" ".join(chat.texts) for chat in server.chats]
    asked = [text for text in texts if "Which colour" not in text]
    return ["c" if "<<<solid black triangle>>>" in text else "-" for text in asked]


def test_canaries_stand_before_half_way_and_after_and_a_steady_judge_passes(
    made: Path, run: Path, server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "figures.json"
    assert judge(run, server, *KEPT, "--estimate", "--json", said) == OK
    estimate = json.loads(said.read_text())
    assert judge(run, server, *KEPT, "--json", said) == OK
    turns = moments(server)
    assert len(turns) == estimate["in_all/n_requests"]
    n = json.loads(said.read_text())["canary/repeated"]
    runs = [(key, len(list(some))) for key, some in groupby(turns)]
    n_all = estimate["score-canary/n_requests"]
    assert runs == [("c", n), ("-", 2 * N_FEW), ("c", n), ("-", 2 * N_FEW), ("c", n_all)]
    assert 3 <= n <= n_all
    told = capsys.readouterr()
    assert f"{n:.0f} canaries asked again: 100% passed at the start (error 0.0)" in told.out
    assert "the judge has changed" not in told.err
    whole = (run / "scores.jsonl").read_bytes()
    other = copy(made, tmp_path / "in parts")  # the moments are those of all labels, not of a call
    for limit in (3, 5, 2, N_FEW):
        assert judge(other, server, *KEPT, "--limit", limit, "--json", said) == OK
    assert (other / "scores.jsonl").read_bytes() == whole
    again = moments(server)[len(turns) :]
    assert again[: int(n)] == ["c"] * int(n)
    assert again.count("c") == turns.count("c")
    assert json.loads(said.read_text())["canary/end_passed"] == 1


@pytest.mark.parametrize("at", ["half way", "end"])
def test_a_judge_that_changes_under_way_is_said_aloud_and_recorded(
    run: Path,
    vlm: CodedVlm,
    server: Loopback,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    at: str,
) -> None:
    vlm.worse_after = {"half way": N_FEW, "end": 3 * N_FEW}[at]
    said = tmp_path / "figures.json"
    judge(run, server, *KEPT, "--concurrency", 1, "--json", said)
    told = capsys.readouterr()
    assert "the judge has changed since the start" in told.err
    assert "100% passed at the start" in told.out
    figures = json.loads(said.read_text())
    assert figures["canary/start_passed"] == 1
    assert figures["canary/half_passed"] == (0 if at == "half way" else 1)
    assert figures["canary/end_passed"] == 0
    assert figures["canary/drift"] > 20
    kinds = {row["kind"] for row in read_jsonl(run / "tasks.jsonl")}
    assert kinds == {"canary-start", "canary-half", "canary"}


def test_a_run_that_was_begun_without_them_has_no_start(run: Path, server: Loopback) -> None:
    assert judge(run, server, *KEPT[:-1], 0, "--limit", 3) == OK
    assert judge(run, server, *KEPT) == OK
    assert {row["kind"] for row in read_jsonl(run / "tasks.jsonl")} == {"canary"}
