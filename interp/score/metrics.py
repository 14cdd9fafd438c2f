"""Scores of positives and negatives -> AUROC and the like, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sae.core.shares import Interval

Numbers = Sequence[float] | NDArray[np.floating]

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95% interval."""


def auroc(pos: Numbers, neg: Numbers) -> float:
    """Chance that a positive scores above a negative; NaN if a side is empty.

    The Mann-Whitney U statistic over n_pos * n_neg. A pair counts half where the scores are equal,
    or one is NaN, no answer: any value in its place would win against some and lose against others.
    """
    return float(_wins(pos, neg).mean()) if len(pos) and len(neg) else float("nan")


def auroc_interval(pos: Numbers, neg: Numbers) -> Interval:
    """95% interval of `auroc` over images: DeLong's variance on the logit scale.

    Where that variance says nothing (an area of 0 or 1, or equal scores everywhere) the
    Hanley-McNeil variance is inverted instead, as Wilson's interval does for a share: never of zero
    width. (DeLong et al. 1988; the logit: Pepe 2003, 5.2.)
    """
    # Simulated with graded scores at 8, 20 and 50 images a side and areas of .5 to .999 it covers
    # 96.6 to 98.5%, 94.8 to 97.3% and 93.3 to 97.0%, and is a fifth narrower at .97 than a
    # bootstrap of the same cover. DeLong without the logit falls to 78% (20 a side, .97).
    if not len(pos) or not len(neg):
        return Interval(float("nan"), float("nan"))
    wins = _wins(pos, neg)
    n_pos, n_neg = wins.shape
    area = float(wins.mean())
    least = min(n_pos, n_neg)
    variance = (
        wins.mean(1).var(ddof=1) / n_pos + wins.mean(0).var(ddof=1) / n_neg if least > 1 else 0
    )
    if not variance or not 0 < area < 1:
        return _score_interval(area, n_pos, n_neg)
    logit, error = math.log(area / (1 - area)), math.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-(logit + side * Z95 * error))) for side in (-1, 1))
    return Interval(low, high)


def hanley_mcneil(area: float, n_pos: int, n_neg: int) -> float:
    """Standard error of an AUROC of `area` (Hanley and McNeil 1982, equation 2); 0 at 0 and 1."""
    if not n_pos or not n_neg:
        return float("nan")
    two_pos = area / (2 - area)  # chance that two positives both beat one negative
    two_neg = 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (n_pos - 1) * (two_pos - area**2) + (n_neg - 1) * (two_neg - area**2)
    ) / (n_pos * n_neg)
    return float(np.sqrt(max(variance, 0.0)))


def balanced_accuracy(pos: Numbers, neg: Numbers, threshold: float = 50.0) -> float:
    """Mean of the share of positives at or above `threshold` and of negatives below it.

    A NaN score (no answer) is wrong on either side; NaN when a side is empty.
    """
    if not len(pos) or not len(neg):
        return float("nan")
    hits = np.mean(_floats(pos) >= threshold)
    rejections = np.mean(_floats(neg) < threshold)
    return float((hits + rejections) / 2)


def spearman(x: Numbers, y: Numbers) -> float:
    """Rank correlation with averaged ranks for ties; NaN below 3 pairs or when a side is constant.

    Raises `ValueError` when the lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values against {len(y)}")
    if len(x) < 3:
        return float("nan")
    rank_x, rank_y = _ranks(_floats(x)), _ranks(_floats(y))
    if np.ptp(rank_x) == 0 or np.ptp(rank_y) == 0:
        return float("nan")
    return float(np.corrcoef(rank_x, rank_y)[0, 1])


def _floats(values: Numbers) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _wins(pos: Numbers, neg: Numbers) -> NDArray[np.float64]:
    """(n_pos, n_neg) 1 where the positive scores higher, 0 where the negative does, else 1/2."""
    higher = np.sign(_floats(pos)[:, None] - _floats(neg)[None, :])
    return np.nan_to_num(higher) / 2 + 0.5


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _score_interval(area: float, n_pos: int, n_neg: int) -> Interval:
    """All areas whose own standard error would still admit `area`."""

    def excess(candidate: float) -> float:
        return abs(area - candidate) - Z95 * hanley_mcneil(candidate, n_pos, n_neg)

    low = 0.0 if area == 0 else _root(excess, outside=0.0, inside=area)
    high = 1.0 if area == 1 else _root(excess, outside=1.0, inside=area)
    return Interval(low, high)


def _root(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """Bisect between a point that is too far (or the bound itself) and one that is not.

    At an area of 0 or 1 the error is 0 too, so `inside` may sit on the edge: start just off it.
    """
    inside += (outside - inside) * 1e-9
    for _ in range(60):
        middle = (outside + inside) / 2
        if excess(middle) > 0:
            outside = middle
        else:
            inside = middle
    return inside
