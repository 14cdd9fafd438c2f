"""Intervals at several looks: together they hold the truth in 95% of the tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.score_statistics import AREAS, FAULTS, measure_adaptive
from interp.score.metrics import Z95
from interp.score.statistics.sequence import (
    chance_of_at_most,
    chances_ahead,
    critical_values,
    level_of,
)
from sae.core.shares import Interval
from tests.support.interp.oracles import World

SHARES = (0.16, 0.28, 0.40, 0.64, 1.0)


def test_one_look_is_an_ordinary_interval() -> None:
    assert critical_values((1.0,)) == (Z95,)
    assert level_of(Z95) == 0.95


def test_values_are_those_of_the_group_sequential_tests_in_the_books(monkeypatch) -> None:
    """Jennison and Turnbull 2000, tables 2.1 (Pocock) and 2.3 (O'Brien and Fleming), 5 looks."""
    even = (0.2, 0.4, 0.6, 0.8, 1.0)
    for shape, values in ((0.5, [2.413] * 5), (0.0, [4.562, 3.226, 2.634, 2.281, 2.040])):
        monkeypatch.setattr("interp.score.statistics.sequence.SHAPE", shape)
        critical_values.cache_clear()
        assert critical_values(even) == pytest.approx(values, abs=2e-3)
    critical_values.cache_clear()


def walks(values: tuple[float, ...]) -> float:
    """Share of random walks without drift that are beyond the values at none of the looks."""
    rng = np.random.default_rng(0)
    steps = np.diff((0, *SHARES))
    at = np.cumsum(rng.normal(size=(200_000, len(SHARES))) * np.sqrt(steps), axis=1)
    return float((np.abs(at / np.sqrt(SHARES)) <= values).all(1).mean())


def test_all_looks_together_hold_the_truth_of_95_in_100_and_plain_intervals_do_not() -> None:
    assert walks(critical_values(SHARES)) == pytest.approx(0.95, abs=0.002)
    assert walks((Z95,) * 5) < 0.88


def test_the_looks_of_a_score_hold_the_truth_and_plain_intervals_at_each_look_do_not() -> None:
    world = World(0.7)
    assert measure_adaptive(world, 150, seed=1).cover > 0.92
    peeking = measure_adaptive(world, 150, seed=1, values=(Z95,) * 5)
    assert peeking.cover < 0.9


@pytest.mark.parametrize("lead", [0.0, 0.3, 0.6, 1.0])
def test_the_chance_of_a_sure_side_is_that_of_tests_that_go_on(lead: float) -> None:
    """Simulated on the logit scale, where the truth is as likely here as there beforehand."""
    share, z, z_end, error = 0.4, 2.47, 2.26, 0.35
    bounds = Interval(*expit([lead - z * error, lead + z * error]))
    above, below = chances_ahead(bounds, z, share, z_end)
    rng = np.random.default_rng(0)
    truth = lead + error * rng.normal(size=400_000)
    rest = truth + error * math.sqrt(share / (1 - share)) * rng.normal(size=truth.size)
    whole = share * lead + (1 - share) * rest
    edge = z_end * error * math.sqrt(share)
    assert above == pytest.approx((whole > edge).mean(), abs=0.003)
    assert below == pytest.approx((whole < -edge).mean(), abs=0.003)


def test_an_interval_that_reaches_1_leaves_everything_open() -> None:
    assert chances_ahead(Interval(0.4, 1.0), 2.5, 0.2, 2.2) == (1.0, 1.0)


@pytest.mark.parametrize("n_bad", [0, 1, 2, 4])
def test_the_chance_of_few_bad_ones_is_that_of_rests_drawn_with_any_rate(n_bad: int) -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(n_bad + 0.5, 16 - n_bad + 0.5, 200_000)
    found = (n_bad + rng.binomial(84, rates) <= 10).mean()
    assert chance_of_at_most(10.0, n_bad, 16, 100) == pytest.approx(found, abs=0.005)


def test_once_all_are_seen_the_chance_of_few_bad_ones_is_0_or_1() -> None:
    assert chance_of_at_most(10.0, 10, 100, 100) == 1
    assert chance_of_at_most(10.0, 11, 100, 100) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "offset"), FAULTS)
def test_looks_cover_the_truth_of_500_oracles_at_every_area_for_less(lost, offset) -> None:
    found = [measure_adaptive(World(area, 0.1, offset, lost), 500, seed=0) for area in AREAS]
    for area, one in zip(AREAS, found, strict=True):
        assert min(one.cover, one.cover_hard) > 0.93, area
        assert one.contrary <= 0.01
        assert abs(one.bias) < 0.04
    assert np.mean([one.calls for one in found]) <= 0.6
    if lost < 0.2:  # where a quarter is lost hardly a test has a score
        assert np.nanmean([one.same_scored for one in found]) > 0.93
    if not lost:
        assert np.mean([one.same for one in found]) > 0.95
