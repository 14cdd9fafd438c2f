"""`--adaptive`: images are judged step by step until it is sure whether a label says anything."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from interp.records.types import MISSING, TOO_FEW, UNREADABLE, Example, Score
from interp.score.figures import figures_of
from interp.score.run import n_questions
from interp.score.sampling import ADAPTIVE, SampleConfig, draw_sample, looks_of
from sae.core.errors import UserError
from sae.data.images import BadImage
from tests.support.interp.asking import pending_tests, score_run
from tests.support.interp.latents import MAX_ACT, Source, explained, make_evidence
from tests.support.interp.oracles import Oracle, circular, graded, refusing, truth_of
from tests.support.interp.scoring import Scripted, redness, score, scores_in

EVIDENCE = [make_evidence(n, n_silent=60, n_hard=30) for n in range(1, 13)]
TRUTH = truth_of(*EVIDENCE)


def judged_by_look(latent: int = 7, **how: int) -> list[list[Example]]:
    evidence = make_evidence(latent, **how)
    looks = looks_of(draw_sample(evidence, ADAPTIVE), ADAPTIVE, latent)
    return [[e for grid in look.grids for e in grid] for look in looks]


# ------------------------------------------------------------------------------ which images


def test_looks_are_whole_questions_and_every_image_is_judged_once() -> None:
    evidence = make_evidence(7, n_silent=60, n_hard=30)
    sample = draw_sample(evidence, ADAPTIVE)
    looks = looks_of(sample, ADAPTIVE, 7)
    assert [[len(g) for g in look.grids] for look in looks] == [
        [8, 8],
        [12],
        [12],
        [12, 12],
        [12, 12, 12],
    ]
    assert [look.share for look in looks] == [0.16, 0.28, 0.40, 0.64, 1.0]
    dealt = Counter(e.image_id for look in looks for grid in look.grids for e in grid)
    assert dealt == Counter(e.image_id for side in sample for e in side)


@pytest.mark.parametrize("latent", range(20))
def test_what_is_judged_by_any_look_is_as_even_a_draw_as_the_whole(latent: int) -> None:
    judged: list[Example] = []
    for part in judged_by_look(latent, n_silent=60, n_hard=30):
        judged += part
        positives = [e for e in judged if e.is_positive]
        negatives = [e for e in judged if not e.is_positive]
        assert abs(len(positives) - len(negatives)) <= 4
        strata = Counter(e.stratum for e in positives)
        assert max(strata.values()) - min(strata[n] for n in range(5)) <= 1
        kinds = Counter(e.kind for e in negatives)
        assert abs(kinds["hard"] - kinds["silent"]) <= 2
        for domain in ("sketch", "photo"):  # those of a positive and its negative are the same
            of = [sum(e.domain == domain for e in side) for side in (positives, negatives)]
            assert abs(of[0] - of[1]) <= 4


def test_the_share_of_active_images_differs_from_question_to_question() -> None:
    counts = {
        (len(grid), sum(e.is_positive for e in grid))
        for latent in range(20)
        for look in looks_of(draw_sample(make_evidence(latent), ADAPTIVE), ADAPTIVE, latent)
        for grid in look.grids
    }
    assert {n for size, n in counts if size == 12} >= {5, 6, 7}


@pytest.mark.parametrize(
    ("n_silent", "ends"), [(60, [16, 28, 40, 64, 100]), (14, [16, 28, 40, 80]), (5, [16, 28, 71])]
)
def test_no_look_is_for_less_than_a_question(n_silent: int, ends: list[int]) -> None:
    judged, found = 0, []
    for part in judged_by_look(n_silent=n_silent, n_hard=n_silent, n_active=60):
        judged += len(part)
        found.append(judged)
    assert found[:2] == ends[:2]
    assert all(b - a >= ADAPTIVE.n_tiles for a, b in itertools.pairwise(found))


def test_steps_that_do_not_rise_are_refused() -> None:
    with pytest.raises(UserError, match="larger than the one before"):
        SampleConfig(steps=(8, 8))


# ------------------------------------------------------------------------------ when it ends


def test_a_clear_label_ends_early_and_says_why() -> None:
    judge = Oracle(TRUTH, circular(MAX_ACT))
    found = score(judge, EVIDENCE[0], config=ADAPTIVE)
    assert (found.stopped, found.most_looks) == ("decided", 5)
    assert found.n_positive + found.n_negative == {1: 16, 2: 28}[found.looks]
    assert {verdict.call for verdict in found.verdicts} == set(range(found.looks + 1))
    assert found.auroc == 1
    assert min(found.auroc_low, found.auroc_hard_low) > 0.5
    assert found.level > 0.98
    assert found.rho > 0.9
    stands_for = sum(v.weight for v in found.verdicts)
    of_all = sum(one.active + one.silent for one in EVIDENCE[0].stats.held_out)
    assert stands_for == pytest.approx(of_all, rel=0.01)


def test_the_rho_of_each_look_is_that_of_a_test_that_ended_there() -> None:
    """Otherwise two labels of which one ended earlier could not be compared on the same images."""
    evidence = EVIDENCE[0]
    clear = score(Oracle(TRUTH, circular(MAX_ACT)), evidence, config=ADAPTIVE)
    vague = score(Oracle(TRUTH, graded(0.6)), evidence, config=ADAPTIVE)
    assert clear.looks < vague.looks == len(vague.rho_by_look)
    assert clear.rho_by_look[-1] == pytest.approx(clear.rho)
    assert vague.rho_by_look[-1] == pytest.approx(vague.rho)
    common = vague.verdicts[: len(clear.verdicts)]
    assert {v.image_id for v in common} == {v.image_id for v in clear.verdicts}
    weights = {v.image_id: v.weight for v in clear.verdicts}
    as_then = [replace(v, weight=weights[v.image_id]) for v in common]
    then = vague.rho_by_look[clear.looks - 1]
    assert then == pytest.approx(figures_of(as_then).rho)
    assert abs(then - vague.rho) > 0.01
    assert score(Oracle(TRUTH, graded(0.6)), evidence).rho_by_look == ()


def test_an_inverted_label_ends_early_too() -> None:
    inverted = Oracle(TRUTH, lambda e, chance: 100 * (1 - e.act / MAX_ACT))
    found = score(inverted, EVIDENCE[0], config=ADAPTIVE)
    assert found.stopped == "decided"
    assert found.auroc_high < 0.5


def scores_by(area: float) -> list[Score]:
    return [score(Oracle(TRUTH, graded(area)), one, config=ADAPTIVE) for one in EVIDENCE]


def test_a_label_that_says_nothing_ends_once_all_images_would_hardly_tell_more() -> None:
    found = scores_by(0.5)
    ended = Counter(one.stopped for one in found)
    assert ended["left open"] >= 9
    for one in found:
        if one.stopped == "left open":
            assert one.looks < one.most_looks
            assert one.auroc_low < 0.5 < one.auroc_high or one.auroc_hard_low < 0.5
    assert sum(one.n_positive + one.n_negative for one in found) < 70 * len(found)


def test_a_label_that_all_images_may_tell_from_chance_is_judged_on_all_of_them() -> None:
    found = scores_by(0.65)
    whole = next(one for one in found if one.stopped == "all images")
    assert (whole.n_positive, whole.n_negative, whole.looks) == (50, 50, 5)
    assert 0.97 < whole.level < 0.98


def test_a_latent_with_fewer_images_says_so() -> None:
    fewer = [make_evidence(n, n_silent=10, n_hard=8) for n in range(20, 30)]
    judge = Oracle(truth_of(*fewer), graded(0.65))
    ended = [score(judge, one, config=ADAPTIVE) for one in fewer]
    found = next(one for one in ended if one.stopped == "no more images")
    assert found.n_positive + found.n_negative < 100
    none = score(Scripted(redness), make_evidence(n_active=4), config=ADAPTIVE)
    assert (none.failure, none.stopped) == (TOO_FEW, "no more images")


def test_a_judge_that_refuses_is_not_asked_to_the_end() -> None:
    judge = Scripted(lambda image: None, "refused")
    found = score(judge, EVIDENCE[0], config=ADAPTIVE)
    assert (found.failure, found.stopped, len(judge.asked)) == (MISSING, "failed", 2)


def test_a_test_ends_once_too_few_of_the_answers_will_come() -> None:
    """Of the first images a third has none: that a tenth of all lack theirs is next to sure."""
    judge = Oracle(TRUTH, graded(0.6), lost=1 / 3, seed=1)
    found = [score(judge, one, config=ADAPTIVE) for one in EVIDENCE]
    assert {one.failure for one in found} == {MISSING}
    assert {one.stopped for one in found} == {"failed"}
    assert sum(len(one.verdicts) for one in found) < 25 * len(found)
    assert min(one.n_missing for one in found) < 10  # of 100, the number that is allowed


def test_a_few_missing_answers_at_the_first_look_are_made_up_for_by_the_next() -> None:
    """2 of 16 are too many for a score, of 28 or 40 they are not."""
    judge = Oracle(TRUTH, refusing(graded(0.99), active=0.1, silent=0.02), seed=3)
    found = [score(judge, one, config=ADAPTIVE) for one in EVIDENCE]
    ended = [one for one in found if one.stopped == "decided"]
    assert any(one.n_missing for one in ended)
    for one in ended:
        assert one.n_missing <= 0.1 * len(one.verdicts)


def test_images_that_are_gone_end_it_and_are_asked_again() -> None:
    def gone(example: Example) -> object:
        raise BadImage("gone")

    found = score(Scripted(redness), EVIDENCE[0], gone, config=ADAPTIVE)
    assert (found.failure, found.stopped) == (UNREADABLE, "failed")


def test_an_answer_that_waiting_would_bring_ends_the_test_for_now(tmp_path: Path) -> None:
    lost = Scripted(lambda image: None, "timeout")
    found = score(lost, EVIDENCE[0], config=ADAPTIVE)
    assert found.failure == "timeout"
    assert len(lost.asked) == 2
    path = tmp_path / "scores.jsonl"
    tests, source = [explained(1)], Source(EVIDENCE[0])
    score_run(path, source, lost, tests, config=ADAPTIVE)
    assert pending_tests(path, source, "scripted", "p1", tests, config=ADAPTIVE) == tests


# ------------------------------------------------------------------------------ a whole run


def test_a_test_that_ended_at_any_look_is_done_and_a_fixed_one_is_another(tmp_path: Path) -> None:
    path, source = tmp_path / "scores.jsonl", Source(*EVIDENCE)
    tests = [explained(one.stats.latent) for one in EVIDENCE]
    judge = Oracle(TRUTH, graded(0.8))
    summary = score_run(path, source, judge, tests, config=ADAPTIVE)
    assert len({one.looks for one in scores_in(path)}) > 2
    done = ("oracle", "truth", tests)
    assert pending_tests(path, source, *done, config=ADAPTIVE) == []
    assert pending_tests(path, source, *done) == tests
    assert summary.n_scored == len(tests)
    assert sum(summary.looks.values()) == sum(summary.stopped.values()) == len(tests)
    before = path.read_bytes()
    score_run(path, source, judge, tests, config=ADAPTIVE)
    assert path.read_bytes() == before


def test_one_worker_and_sixteen_leave_the_same_bytes(tmp_path: Path) -> None:
    tests = [explained(one.stats.latent) for one in EVIDENCE]
    for name, workers in (("one", 1), ("sixteen", 16)):
        (tmp_path / name).mkdir()
        judge = Oracle(TRUTH, graded(0.8), offset=8, lost=0.03)
        path = tmp_path / name / "scores.jsonl"
        score_run(path, Source(*EVIDENCE), judge, tests, config=ADAPTIVE, concurrency=workers)
    one, sixteen = ((tmp_path / name / "scores.jsonl") for name in ("one", "sixteen"))
    assert one.read_bytes() == sixteen.read_bytes()


def test_questions_are_counted_from_the_first_look_to_the_last() -> None:
    assert n_questions(EVIDENCE[0], ADAPTIVE) == 9
    assert n_questions(EVIDENCE[0], ADAPTIVE, at_least=True) == 2
    assert n_questions(EVIDENCE[0]) == n_questions(EVIDENCE[0], at_least=True) == 4
    assert n_questions(make_evidence(n_active=4), ADAPTIVE) == 0
