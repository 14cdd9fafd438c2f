"""A label against a null on the same images: the gain and how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from interp.score.metrics import auroc, auroc_interval
from interp.score.nulls.compare import aurocs, compare, gain_interval

TRUTH = np.array([True] * 20 + [False] * 20)


def draw(seed: int, shift: float, other: float, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Grades of a label and of a null whose noise has the part `shared` in common."""
    rng = np.random.default_rng(seed)
    common, one, two = rng.normal(size=(3, len(TRUTH)))
    mix, rest = math.sqrt(shared), math.sqrt(1 - shared)
    return (shift * TRUTH + mix * common + rest * one, other * TRUTH + mix * common + rest * two)


def test_areas_by_ranks_are_those_by_pairs() -> None:
    grades = np.random.default_rng(0).integers(0, 5, (30, len(TRUTH))).astype(float)
    by_pairs = [auroc(row[TRUTH], row[~TRUTH]) for row in grades]
    assert aurocs(grades, TRUTH) == pytest.approx(by_pairs, abs=1e-12)
    assert np.isnan(aurocs(grades, np.ones(len(TRUTH), bool))).all()


def test_a_gain_is_the_difference_of_the_areas_and_a_missing_answer_counts_half() -> None:
    own = [90.0, 80.0, math.nan, 10.0]
    null = [10.0, 20.0, 30.0, 40.0]
    found = compare("word", "kite", own, null, [True, True, False, False])
    assert (found.auroc, found.gain) == (0.0, 0.75)
    assert found.gain_low < 0.75 < found.gain_high


def test_the_interval_is_that_of_two_independent_areas_where_nothing_is_shared() -> None:
    own, null = draw(3, 2.0, 0.0, 0.0)
    null[:] = np.tile(
        [0.0, 1.0], 20
    )  # the same on both sides: no component varies with the label's
    one, two = auroc_interval(own[TRUTH], own[~TRUTH]), auroc_interval(null[TRUTH], null[~TRUTH])
    area = auroc(own[TRUTH], own[~TRUTH])
    low, _ = gain_interval(own, null, TRUTH)
    independent = area - 0.5 - math.hypot(area - one.low, two.high - 0.5)
    assert low == pytest.approx(independent, abs=0.03)


def test_it_has_a_width_where_the_label_is_perfect_and_the_null_says_nothing() -> None:
    low, high = gain_interval(TRUTH * 100.0, np.full(len(TRUTH), 50.0), TRUTH)
    assert low < 0.45 < 0.5 <= high


def test_grades_that_go_together_make_it_narrower() -> None:
    def width(shared: float) -> float:
        found = [gain_interval(*draw(seed, 1.5, 1.0, shared), TRUTH) for seed in range(40)]
        return float(np.mean([high - low for low, high in found]))

    assert width(0.8) < 0.75 * width(0.0)


def cover(n: int, shift: float, other: float, shared: float) -> float:
    """Share of the intervals that hold the true gain of normal grades."""
    true = [0.5 * (1 + math.erf(mean / 2)) for mean in (shift, other)]  # P(N(mean, 2) > 0)
    found = [gain_interval(*draw(seed, shift, other, shared), TRUTH) for seed in range(n)]
    return float(np.mean([low <= true[0] - true[1] <= high for low, high in found]))


def test_intervals_hold_the_true_gain() -> None:
    assert cover(200, 1.8, 0.0, 0.5) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "other", "shared"),
    [(1.2, 0.0, 0.0), (1.8, 0.0, 0.5), (2.6, 0.8, 0.5), (0.0, 0.0, 0.8), (1.5, 1.5, 0.5)],
)
def test_intervals_cover_93_to_98_in_100(shift: float, other: float, shared: float) -> None:
    assert 0.93 <= cover(3000, shift, other, shared) <= 0.98
