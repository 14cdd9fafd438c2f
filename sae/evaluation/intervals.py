"""Masks of hits -> how sure a difference of two is, and whether one is above chance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.core.shares import Interval, wilson_interval


class Difference(NamedTuple):
    """after - before, with its 95% confidence interval."""

    delta: float
    low: float
    high: float


def binomial_tail(n_hits: int, n: int, chance: float) -> float:
    """How likely `n_hits` or more of n are by chance alone: exact, summed from logarithms."""
    if n_hits <= 0 or chance >= 1:
        return 1.0
    terms = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
        + i * math.log(chance) + (n - i) * math.log1p(-chance)
        for i in range(n_hits, n + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, terms)))


def paired_difference(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Difference:
    """Difference of the shares of True in two masks (n,) over the same things.

    Newcombe's score interval for paired data (1998, method 10): Wilson's interval of each share,
    put together with their correlation. Unlike a bootstrap or Wald's interval it has a width where
    both masks agree on everything: a few images cannot show that nothing is lost.
    """
    n = len(before)
    p, q = float(after.mean()), float(before.mean())
    p_low, p_high = wilson_interval(int(after.sum()), n)
    q_low, q_high = wilson_interval(int(before.sum()), n)
    phi = _correlation(after, before)
    below, above = (
        _join_halves(p - p_low, q_high - q, phi),
        _join_halves(p_high - p, q - q_low, phi),
    )
    return Difference(p - q, p - q - below, p - q + above)


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """95% interval of the mean of values (n,) by Student's t; NaN for fewer than two."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return Interval(math.nan, math.nan)
    mean = float(values.mean())
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Interval(mean - half, mean + half)


def _join_halves(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _correlation(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Pearson's phi of the four-fold table, its numerator drawn to 0 by n / 2 where positive."""
    n = len(a)
    n_a, n_b, both = int(a.sum()), int(b.sum()), int((a & b).sum())
    product = n_a * (n - n_a) * n_b * (n - n_b)
    if product == 0:
        return 0.0
    neither = n - n_a - n_b + both
    excess = both * neither - (n_a - both) * (n_b - both)
    return (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(product)
