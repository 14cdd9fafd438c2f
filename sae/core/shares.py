"""Counts -> shares: how sure a share is, and how many places each share gets."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959964
"""Standard normal quantile of a two-sided 95% interval, rounded as in every eval.json so far."""


class Interval(NamedTuple):
    """A two-sided 95% interval; NaN where there is nothing to go on."""

    low: float
    high: float


def wilson_interval(n_hits: int, n: int) -> Interval:
    """95% interval of a share (Wilson 1927), inside [0, 1], never of zero width; NaN at n = 0."""
    if not n:
        return Interval(math.nan, math.nan)
    share, z2 = n_hits / n, _Z95 * _Z95
    middle = share + z2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if n_hits == 0 else (middle - half) / (1 + z2 / n)
    return Interval(low, 1.0 if n_hits == n else (middle + half) / (1 + z2 / n))


def apportion(n: int, weights: NDArray[Any]) -> NDArray[np.int64]:
    """`n` places in proportion to `weights` along the last axis, by largest remainder.

    Equal remainders: the earlier one first. No places where all weights are 0. Remainders of
    integers are exact; those of floats are of rounded quotients, so that 1/3 and 4/3 may differ.
    """
    total = weights.sum(-1, keepdims=True)
    some = total > 0
    if np.issubdtype(weights.dtype, np.integer):
        places, remainder = np.divmod(n * weights, np.maximum(total, 1))
    else:
        exact = n * weights / np.where(some, total, 1)
        places = np.floor(exact).astype(np.int64)
        remainder = exact - places
    left = np.where(some, n, 0) - places.sum(-1, keepdims=True)
    rank = np.argsort(np.argsort(-remainder, axis=-1, kind="stable"), axis=-1, kind="stable")
    return np.asarray(places + (rank < left), np.int64)
