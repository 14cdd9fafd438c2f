from __future__ import annotations

import numpy as np
import pytest

from sae.evaluation.intervals import Difference, binomial_tail, paired_difference


def difference(both: int, gained: int, lost: int, neither: int) -> Difference:
    """after - before in so many pairs."""
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return paired_difference(np.array(before), np.array(after))


@pytest.mark.parametrize(
    ("pairs", "interval"),
    [
        ((36, 12, 2, 0), (0.2, 0.0569, 0.3404)),  # Newcombe 1998, table II
        ((1, 1, 7, 12), (-0.2857, -0.5069, -0.0256)),  # Bentur 2009, in Fagerland et al. 2014
        ((59, 6, 16, 80), (-0.0621, -0.1186, -0.0046)),  # Cavo 2012, the same
    ],
)
def test_the_interval_is_that_of_the_literature(
    pairs: tuple[int, int, int, int], interval: tuple[float, float, float]
) -> None:
    assert difference(*pairs) == pytest.approx(interval, abs=5e-5)


def test_before_and_after_exchanged_turn_the_interval_about() -> None:
    one, other = difference(50, 9, 3, 10), difference(50, 3, 9, 10)
    assert (one.delta, one.low, one.high) == pytest.approx((-other.delta, -other.high, -other.low))


def test_agreement_on_everything_still_has_a_width_that_shrinks_with_more_images() -> None:
    few, many = difference(8, 0, 0, 2), difference(8000, 0, 0, 2000)
    assert few.delta == many.delta == 0
    assert few.low < 10 * many.low < many.low < 0 < many.high < few.high


@pytest.mark.parametrize("pairs", [(9, 0, 0, 0), (0, 0, 0, 9), (0, 9, 0, 0), (0, 0, 9, 0)])
def test_the_ends_are_finite_where_every_pair_is_alike(pairs: tuple[int, int, int, int]) -> None:
    found = difference(*pairs)
    assert -1 <= found.low <= found.delta <= found.high <= 1


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    n_right = 0
    for _ in range(2000):
        before = rng.random(200) < 0.7
        after = np.where(rng.random(200) < 0.2, rng.random(200) < 0.5, before)  # .2 * (.5 - .7)
        found = paired_difference(before, after)
        n_right += found.low <= -0.04 <= found.high
    assert 0.93 < n_right / 2000 < 0.985


def test_the_binomial_tail_is_exact() -> None:
    assert binomial_tail(0, 5, 0.5) == 1
    assert binomial_tail(4, 5, 1 / 3) == pytest.approx(11 / 243)
    assert binomial_tail(5, 5, 0.5) == pytest.approx(1 / 32)
    assert binomial_tail(60, 50_000, 0.001) == pytest.approx(
        0.0921564, abs=1e-6
    )  # scipy.stats.binom
