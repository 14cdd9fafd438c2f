"""Intervals at several looks: together they hold the truth in 95% of the tests."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.score_statistics import AREAS, FAULTS, measure_adaptive
from interp.score.metrics import Z95
from interp.score.statistics.sequence import critical_values, level_of
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


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "offset"), FAULTS)
def test_looks_cover_the_truth_of_500_oracles_at_every_area_for_less(lost, offset) -> None:
    found = [measure_adaptive(World(area, 0.1, offset, lost), 500, seed=0) for area in AREAS]
    for area, one in zip(AREAS, found, strict=True):
        assert min(one.cover, one.cover_hard) > 0.93, area
        assert one.contrary <= 0.01
        assert abs(one.bias) < 0.04
    if not lost:
        assert np.mean([one.calls for one in found]) <= 0.6
        assert np.mean([one.same for one in found]) > 0.95
