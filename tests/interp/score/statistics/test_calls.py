"""Calls of a judge that differ in level: found, measured, and taken out of the area."""

from __future__ import annotations

import math

import numpy as np
import pytest

from interp.score.metrics import auroc, auroc_within, interval_within
from interp.score.statistics.calls import differ, levels

CALLS = np.repeat(np.arange(4), 10)
TRUTH = np.tile(np.arange(10) < 5, 4)


def grades(rng: np.random.Generator, offset: float, shift: float = 1.8124) -> np.ndarray:
    """Of a judge with an area of .9 within calls; call levels with an sd of `offset` of its own."""
    return shift * TRUTH + rng.normal(size=40) + (offset * rng.normal(size=4))[CALLS]


def groups(values: np.ndarray, call: np.ndarray = CALLS) -> list:
    return [(values[TRUTH & (call == c)], values[~TRUTH & (call == c)]) for c in np.unique(call)]


def test_calls_of_one_level_are_called_different_as_often_as_the_level_of_the_test_says() -> None:
    rng = np.random.default_rng(0)
    found = np.mean([differ(grades(rng, 0), TRUTH, CALLS) for _ in range(600)])
    assert 0.07 < found < 0.13
    assert np.mean([differ(grades(rng, 1), TRUTH, CALLS) for _ in range(100)]) > 0.8
    assert not differ(np.full(40, 50.0), TRUTH, CALLS)
    assert not differ(grades(rng, 5), TRUTH, np.zeros(40, int))


def test_an_offset_of_one_deviation_costs_all_pairs_their_area_and_not_the_pairs_within_calls() -> (
    None
):
    rng = np.random.default_rng(1)
    drawn = [grades(rng, 1) for _ in range(400)]
    every = np.mean([auroc(one[TRUTH], one[~TRUTH]) for one in drawn])
    within = np.mean([auroc_within(groups(one)) for one in drawn])
    assert every == pytest.approx(0.836, abs=0.015)
    assert within == pytest.approx(0.9, abs=0.01)
    bounds = [interval_within(groups(one)) for one in drawn]
    assert 0.92 < np.mean([low <= 0.9 <= high for low, high in bounds]) < 0.98


def test_the_area_within_calls_is_the_mean_over_their_pairs() -> None:
    pairs = [([3, 1], [2]), ([9, 9], [1, 20]), ([], [4]), ([4], [])]
    # 3 > 2, 1 < 2; twice 9 > 1 and 9 < 20.
    assert auroc_within(pairs) == pytest.approx((1 + 2) / (2 + 4))
    assert math.isnan(auroc_within([([], [1]), ([2], [])]))
    perfect = interval_within([([9.0] * 5, [1.0] * 5)] * 4)
    assert perfect.high == 1
    assert 0.88 < perfect.low < 0.899  # below what all 400 pairs would give
    one_each = interval_within([([2.0], [1.0]), ([1.0], [2.0]), ([3.0], [1.0])])
    assert 0 < one_each.low < 2 / 3 < one_each.high < 1


def test_levels_are_what_the_calls_add_and_nothing_where_they_add_nothing() -> None:
    rng = np.random.default_rng(2)
    added = np.array([0.0, 30, -20, 10])
    values = 60 * TRUTH + rng.normal(size=40) + added[CALLS]
    found = levels(values, TRUTH, CALLS)
    assert found == pytest.approx((added - added.mean())[CALLS], abs=1)
    assert not levels(60 * TRUTH + rng.permutation(np.tile([1.0, 2], 20)), TRUTH, CALLS).any()
    values[:3] = math.nan
    assert found == pytest.approx(levels(values, TRUTH, CALLS), abs=1.5)
