"""A column of numbers is rounded as each of them is."""

from __future__ import annotations

import numpy as np
import pytest

from interp.report.figures import number, numbers


@pytest.mark.parametrize("digits", [3, 4])
def test_a_column_is_rounded_as_each_of_its_numbers(digits: int) -> None:
    rng = np.random.default_rng(0)
    halves = rng.integers(-100_000, 100_000, 2000) / 8  # many lie between two figures exactly
    sizes = 10.0 ** rng.integers(-20, 20, 2000)
    odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1e308, 9999.5, 0.00099995])
    beside = np.nextafter(10.0 ** np.arange(-16, 17), 0)
    column = np.concatenate([halves, halves * sizes, rng.normal(size=2000), odd, beside])
    with np.errstate(over="ignore"):
        short = column.astype(np.float32)
    for values in (column, short):
        expected = [number(value, digits) for value in values.astype(float).tolist()]
        assert list(map(repr, numbers(values, digits))) == list(map(repr, expected))
