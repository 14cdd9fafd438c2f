"""Grades of a label and of others on the same images -> AUROCs, gains and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from interp.records.nulls import Null
from interp.score.metrics import Z95, auroc, auroc_interval
from sae.core.shares import Interval

Grades = NDArray[np.float64]


def aurocs(grades: Grades, truth: NDArray[np.bool_]) -> Grades:
    """(m,) AUROC of each row of `grades` (m, n), by ranks; `truth` (n,) says which are positives.

    NaN where a side is empty. All grades must be there.
    """
    n_pos = int(truth.sum())
    n_pairs = n_pos * (len(truth) - n_pos)
    if not n_pairs:
        return np.full(len(grades), math.nan)
    ranks = rankdata(grades, axis=1)[:, truth].sum(1)
    return np.asarray((ranks - n_pos * (n_pos + 1) / 2) / n_pairs)


def compare(
    kind: str,
    label: str,
    own: Sequence[float],
    null: Sequence[float],
    truth: Sequence[bool],
    z: float = Z95,
) -> Null:
    """One null against the label; grades are NaN where an answer is missing."""
    is_positive = np.asarray(truth, bool)
    of_own, of_null = np.asarray(own, float), np.asarray(null, float)
    low, high = gain_interval(of_own, of_null, is_positive, z)
    areas = [auroc(g[is_positive], g[~is_positive]) for g in (of_own, of_null)]
    return Null(kind, label, areas[1], areas[0] - areas[1], low, high)


def gain_interval(own: Grades, null: Grades, truth: NDArray[np.bool_], z: float = Z95) -> Interval:
    """95% interval of the difference of two AUROCs on the same images.

    From the interval of each, with DeLong's correlation of the two (MOVER: Zou and Donner 2008):
    never of zero width, as DeLong's own is where one of them is perfect and the other says nothing.
    """
    if not truth.any() or truth.all():
        return Interval(math.nan, math.nan)
    wins = [_wins(grades[truth], grades[~truth]) for grades in (own, null)]
    (low_1, high_1), (low_2, high_2) = (
        auroc_interval(grades[truth], grades[~truth], z) for grades in (own, null)
    )
    area_1, area_2 = (float(one.mean()) for one in wins)
    r = _correlation(*wins)
    down, up = (area_1 - low_1, high_2 - area_2), (high_1 - area_1, area_2 - low_2)
    gain = area_1 - area_2
    return Interval(gain - _joined(*down, r), gain + _joined(*up, r))


def _joined(a: float, b: float, r: float) -> float:
    return math.sqrt(max(a * a + b * b - 2 * r * a * b, 0.0))


def _correlation(first: Grades, second: Grades) -> float:
    """Of the two areas, by DeLong's components; 0 where one of them has no spread."""
    shared = np.zeros((2, 2))
    for axis in (0, 1):
        means = np.stack([first.mean(axis), second.mean(axis)])  # (2, images of one side)
        if means.shape[1] > 1:
            shared += np.cov(means) / means.shape[1]
    spread = math.sqrt(shared[0, 0] * shared[1, 1])
    return float(shared[0, 1] / spread) if spread > 0 else 0.0


def _wins(pos: Grades, neg: Grades) -> Grades:
    """(n_pos, n_neg) 1, 1/2 or 0; 1/2 also where a grade is missing."""
    return np.asarray(np.nan_to_num(np.sign(pos[:, None] - neg[None, :])) / 2 + 0.5)
