"""Grades by call to the judge -> whether its calls differ in level, and by how much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DIFFER_BELOW = 0.1
"""p below which calls count as different in level. Pairs within calls are nearly as precise as all
pairs (7% more variance at 4 calls of 5 + 5), so that a miss costs more than a false alarm: levels
that differ by half a standard deviation are found in 55% of tests of 20 + 20 images, those missed
differ by less, and the area is off by .001 on average."""


def levels(grades: Floats, truth: NDArray[np.bool_], calls: NDArray[np.int64]) -> Floats:
    """(n,) what the call adds to each grade; all 0 where the calls do not differ.

    Whether they do is asked of ranks, by analysis of variance with the truth taken out: images were
    dealt to calls by chance, so that calls of one level differ as chance has it. The level of a
    call is the mean of its grades with the truth taken out, drawn towards 0 by as much as chance
    alone would spread such means. NaN grades have no part.
    """
    known = np.flatnonzero(np.isfinite(grades))
    added = np.zeros(len(grades))
    if len(known) and differ(grades[known], truth[known], calls[known]):
        effects, spread, error = _effects(grades[known], truth[known], calls[known])
        for call, effect in effects.items():
            n = int((calls[known] == call).sum())
            added[calls == call] = effect * spread / (spread + error / n)
    return added


def differ(grades: Floats, truth: NDArray[np.bool_], calls: NDArray[np.int64]) -> bool:
    """Whether the calls differ in level, by `DIFFER_BELOW`. Grades (n,) without NaN."""
    from scipy.stats import f, rankdata

    ranks = rankdata(grades)
    rest, explained, n_free = _split(ranks, truth, calls)
    n_calls = len(np.unique(calls))
    if n_calls < 2 or n_free < 1 or explained <= 1e-9 * len(ranks):
        return False
    ratio = (explained / (n_calls - 1)) / max(rest / n_free, 1e-12)
    return bool(f.sf(ratio, n_calls - 1, n_free) < DIFFER_BELOW)


def _split(
    values: Floats, truth: NDArray[np.bool_], calls: NDArray[np.int64]
) -> tuple[float, float, int]:
    """Squares that truth and call leave, squares that the call explains, degrees of freedom."""
    ones = np.stack([np.ones(len(values)), truth], axis=1)
    full = np.concatenate([ones, calls[:, None] == np.unique(calls)[None, 1:]], axis=1)
    left = [_squares_left(part, values) for part in (full, ones)]
    return left[0], left[1] - left[0], len(values) - np.linalg.matrix_rank(full)


def _squares_left(columns: Floats, values: Floats) -> float:
    fitted = columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
    return float(((values - fitted) ** 2).sum())


def _effects(
    grades: Floats, truth: NDArray[np.bool_], calls: NDArray[np.int64]
) -> tuple[dict[int, float], float, float]:
    """Level of each call about their mean, variance of levels, variance within calls."""
    names = np.unique(calls)
    columns = np.concatenate([truth[:, None], calls[:, None] == names], axis=1).astype(float)
    found = np.linalg.lstsq(columns, grades, rcond=None)[0][1:]
    rest, explained, n_free = _split(grades, truth, calls)
    error = rest / max(n_free, 1)
    spread = max(explained / (len(names) - 1) - error, 0) * len(names) / len(grades)
    middle = float(np.average(found, weights=[(calls == name).sum() for name in names]))
    level = {int(name): float(value) - middle for name, value in zip(names, found, strict=True)}
    return level, max(spread, 1e-12), error
