from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sae.core.shares import apportion, wilson_interval


def test_wilson_of_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for n_hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(n_hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)


def test_wilson_ends_at_0_and_1_and_is_nan_of_nothing() -> None:
    assert all(wilson_interval(0, n).low == 0 for n in range(1, 100))
    assert all(wilson_interval(n, n).high == 1 for n in range(1, 100))
    assert all(math.isnan(bound) for bound in wilson_interval(0, 0))


@pytest.mark.parametrize(
    ("n", "weights", "places"),
    [
        (9, [30, 10], [7, 2]),
        (9, [1, 1], [5, 4]),  # equal remainders: the earlier one
        (10, [1, 1, 1], [4, 3, 3]),
        (8, [4, 1, 1], [6, 1, 1]),  # remainders 1/3 each, also where the whole parts differ
        (5, [0, 3, 0], [0, 5, 0]),
        (5, [0, 0], [0, 0]),
        (0, [2, 1], [0, 0]),
        (3, [], []),
        (7, [0.3, 0.1], [5, 2]),
    ],
)
def test_places_by_largest_remainder(n: int, weights: list[float], places: list[int]) -> None:
    integers = all(isinstance(weight, int) for weight in weights)
    given = np.array(weights, dtype=int if integers else float)
    assert apportion(n, given).tolist() == places


def test_many_rows_at_once_are_each_row_alone_and_add_up_to_n() -> None:
    weights = np.random.default_rng(0).integers(0, 9, (200, 2, 5))
    at_once = apportion(16, weights)
    for index in np.ndindex(200, 2):
        assert at_once[index].tolist() == apportion(16, weights[index]).tolist()
        assert at_once[index].sum() == (16 if weights[index].any() else 0)


def test_nobody_is_a_place_or_more_away_from_the_exact_share() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        n, weights = int(rng.integers(0, 30)), rng.integers(1, 50, 6)
        for given in (weights, weights.astype(float)):
            for places, weight in zip(apportion(n, given), weights, strict=True):
                exact = Fraction(n * int(weight), int(weights.sum()))
                assert abs(int(places) - exact) < 1
