"""Judges whose truth is known: what a score says of each of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.score_statistics import AREAS, FAULTS, TESTS, measure
from interp.records.types import MISSING, Score
from interp.score.metrics import auroc
from tests.support.interp.asking import score_run
from tests.support.interp.latents import MAX_ACT, Source, explained, make_evidence, paint
from tests.support.interp.oracles import (
    Oracle,
    Rule,
    World,
    circular,
    graded,
    hits,
    refusing,
    truth_of,
)
from tests.support.interp.scoring import score, scores_in

EVIDENCE = [make_evidence(latent) for latent in range(1, 13)]
TRUTH = truth_of(*EVIDENCE)


def scores_of(rule: Rule, offset: float = 0.0, lost: float = 0.0) -> list[Score]:
    judge = Oracle(TRUTH, rule, offset, lost)
    return [score(judge, one, paint) for one in EVIDENCE]


def test_hits_and_false_alarms_come_back() -> None:
    """AUROC of two grades: 1/2 + (hits - false alarms) / 2."""
    found = scores_of(hits(0.8, 0.1))
    assert np.mean([one.auroc for one in found]) == pytest.approx(0.85, abs=0.03)
    assert np.mean([one.balanced_accuracy for one in found]) == pytest.approx(0.85, abs=0.03)
    perfect = scores_of(hits(1, 0))
    assert all((one.auroc, one.auroc_strong, one.auroc_weak) == (1, 1, 1) for one in perfect)


def test_a_judge_with_levels_of_its_calls_keeps_its_area() -> None:
    """An sd of one and a half deviations: all pairs lose .06 and more."""
    found = scores_of(graded(0.9, 10), offset=15)
    assert np.mean([one.pairs == "within calls" for one in found]) > 0.8
    assert np.mean([one.auroc for one in found]) == pytest.approx(0.9, abs=0.03)
    of_all = [
        auroc(*([v.score for v in one.verdicts if v.truth is t] for t in (True, False)))
        for one in found
    ]
    assert np.mean(of_all) < 0.85


def test_a_judge_that_refuses_in_step_with_the_truth_gets_no_score() -> None:
    """Grades that say nothing: refused active images neither lift the score nor vanish."""
    silent = refusing(lambda e, chance: 10.0, active=1, silent=0)
    assert [one.failure for one in scores_of(silent)] == [MISSING] * len(EVIDENCE)
    few = scores_of(refusing(graded(0.5), active=0.12, silent=0))
    kept = [one for one in few if one.failure is None]
    assert {one.failure for one in few} <= {None, MISSING}
    assert len(kept) > 6
    assert np.mean([one.auroc for one in kept]) == pytest.approx(0.5, abs=0.06)
    assert abs(np.mean([one.rho for one in kept])) < 0.1


def test_a_circular_judge_is_perfect_whatever_the_label_says() -> None:
    """What no figure of the score can see: it must be known of the judge."""
    found = [
        score(Oracle(TRUTH, circular(MAX_ACT)), one, paint, label="a thing that is not there")
        for one in EVIDENCE
    ]
    assert all(one.auroc == 1 and one.spearman == pytest.approx(1) for one in found)
    # Grades follow the activation to the last digit; where calls seem to differ in level, by chance
    # in one of ten tests, rho is what is left when these levels are taken out.
    assert all(one.rho > 0.999 for one in found if one.pairs == "all")
    assert all(one.rho > 0.9 for one in found)
    assert sum(one.pairs == "all" for one in found) >= 8


def test_one_worker_and_sixteen_leave_the_same_bytes(tmp_path: Path) -> None:
    explanations = [explained(one.stats.latent, "red") for one in EVIDENCE]
    for name, workers in (("one", 1), ("sixteen", 16)):
        (tmp_path / name).mkdir()
        judge = Oracle(TRUTH, graded(0.9), offset=8, lost=0.03)
        path = tmp_path / name / "scores.jsonl"
        score_run(path, Source(*EVIDENCE), judge, explanations, concurrency=workers)
    one, sixteen = ((tmp_path / name / "scores.jsonl") for name in ("one", "sixteen"))
    assert len(scores_in(one)) == len(EVIDENCE)
    assert sorted(one.read_bytes().splitlines()) == sorted(sixteen.read_bytes().splitlines())


@pytest.mark.parametrize(("lost", "offset"), [(0.1, 0.0), (0.0, 0.5)])
def test_intervals_cover_the_truth_under_lost_answers_and_levels(lost, offset) -> None:
    for found in measure(World(0.9, offset=offset, lost=lost), 20, 4, 150, seed=1):
        assert 0.88 < found.cover <= 1  # four standard errors below .95
        assert abs(found.bias) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("n", "n_calls"), TESTS)
@pytest.mark.parametrize(("lost", "offset"), FAULTS)
def test_intervals_cover_the_truth_of_500_oracles_at_every_area(n, n_calls, lost, offset) -> None:
    """With 8 + 8 images of which a quarter is lost, where no run keeps a score, rho is up to .043
    too high (docs/measured.md); everywhere else nothing is off by more than .02 and chance."""
    bar = 0.045 if (n, lost) == (8, 0.25) else 0.02
    for area in AREAS:
        for found in measure(World(area, offset=offset, lost=lost), n, n_calls, 500, seed=0):
            assert 0.91 < found.cover <= 1, area
            assert abs(found.bias) < bar + 2 * found.width / 4 / math.sqrt(500), area
