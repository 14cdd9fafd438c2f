"""Verdicts of one test -> the figures of its score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.records.types import Verdict
from interp.score.metrics import (
    Z95,
    Group,
    auroc_within,
    balanced_accuracy,
    interval_within,
    spearman,
)
from interp.score.statistics.calls import levels
from interp.score.statistics.population import Judged, precision, rho
from interp.score.statistics.sequence import UNLIKELY, chances_ahead
from sae.core.shares import Interval

CHANCE = 0.5
"""AUROC of a label that says nothing."""
Side = Literal["above", "below", ""]
STRONG = (3, 4, -1)
"""Strata of the strongest two fifths; -1 are images of the strongest of all."""


class Figures(NamedTuple):
    """The numbers of a `Score`; NaN without one."""

    auroc: float = math.nan
    auroc_low: float = math.nan
    auroc_high: float = math.nan
    auroc_easy: float = math.nan
    auroc_hard: float = math.nan
    auroc_hard_low: float = math.nan
    auroc_hard_high: float = math.nan
    balanced_accuracy: float = math.nan
    spearman: float = math.nan
    pairs: str = ""
    auroc_strong: float = math.nan
    auroc_weak: float = math.nan
    rho: float = math.nan
    rho_low: float = math.nan
    rho_high: float = math.nan
    precision_at_base_rate: float = math.nan
    precision_low: float = math.nan
    precision_high: float = math.nan
    base_rate: float = math.nan


def figures_of(verdicts: Sequence[Verdict], z: float = Z95) -> Figures:
    """What the verdicts of one test say of its label; intervals of `z` standard errors."""
    positives = [v for v in verdicts if v.truth]
    negatives = [v for v in verdicts if not v.truth]
    answered = [(v.score, v.act) for v in positives if v.score is not None]
    added = levels(*_by_call(verdicts))
    within = bool(added.any())

    def area(positives: Iterable[Verdict], negatives: Iterable[Verdict]) -> float:
        return auroc_within(_groups(positives, negatives, within))

    hard = [v for v in negatives if v.kind == "hard"]
    interval = interval_within(_groups(positives, negatives, within), z)
    of_hard = interval_within(_groups(positives, hard, within), z)
    return Figures(
        auroc=area(positives, negatives),
        auroc_low=interval.low,
        auroc_high=interval.high,
        auroc_easy=area(positives, [v for v in negatives if v.kind == "silent"]),
        auroc_hard=area(positives, hard),
        auroc_hard_low=of_hard.low,
        auroc_hard_high=of_hard.high,
        balanced_accuracy=balanced_accuracy(_scores(positives), _scores(negatives)),
        spearman=spearman([score for score, _ in answered], [act for _, act in answered]),
        pairs="within calls" if within else "all",
        auroc_strong=area([v for v in positives if v.stratum in STRONG], negatives),
        auroc_weak=area([v for v in positives if v.stratum == 0], negatives),
        **_whole_range(verdicts, added, z),
    )


def sure_side(figures: Figures) -> Side:
    """On which side of chance the label is beyond doubt: "above" where both intervals, of all
    negatives and of the hard ones, lie above it, "below" where one lies below; else ""."""
    known = _known_intervals(figures)
    if any(high < CHANCE for _, high in known):
        return "below"
    return "above" if known and all(low > CHANCE for low, _ in known) else ""


def will_stay_open(figures: Figures, z: float, share: float, z_end: float) -> bool:
    """Whether a test of which `share` is judged will hardly have a `sure_side` at its end.

    `z` is the width of the figures' intervals, `z_end` that of those at the end, in standard
    errors. Either side must have a chance below `UNLIKELY`.
    """
    known = _known_intervals(figures)
    ahead = [chances_ahead(interval, z, share, z_end) for interval in known]
    least_above = min((above for above, _ in ahead), default=1.0)
    return max(least_above, *(below for _, below in ahead)) < UNLIKELY


def _known_intervals(figures: Figures) -> list[Interval]:
    """Of the AUROC and of that against hard images, where there is one."""
    bounds = [
        Interval(figures.auroc_low, figures.auroc_high),
        Interval(figures.auroc_hard_low, figures.auroc_hard_high),
    ]
    return [interval for interval in bounds if not math.isnan(interval.low)]


def _whole_range(
    verdicts: Sequence[Verdict], added: NDArray[np.float64], z: float
) -> dict[str, float]:
    """What the grades, less what calls added to them, say of all held-out images; nothing where it
    is not known how many each image stands for."""
    known = [place for place, v in enumerate(verdicts) if not math.isnan(v.weight)]
    if not known:
        return {}
    some = [verdicts[place] for place in known]
    kinds = np.array([0 if v.truth else 1 if v.kind == "silent" else 2 for v in some])
    acts, weights = ([getattr(v, name) for v in some] for name in ("act", "weight"))
    grades = np.array(_scores(some)) - added[known]
    judged = Judged(grades, np.array(acts), np.array(weights), kinds)
    correlation, share = rho(judged, z), precision(judged, z)
    return {
        "rho": correlation.value,
        "rho_low": correlation.low,
        "rho_high": correlation.high,
        "precision_at_base_rate": share.value,
        "precision_low": share.low,
        "precision_high": share.high,
        "base_rate": float(judged.weights[kinds == 0].sum() / judged.weights.sum()),
    }


def _groups(
    positives: Iterable[Verdict], negatives: Iterable[Verdict], within: bool
) -> list[Group]:
    """The grades that are compared with one another: all, or those of each call."""
    sides: dict[int, tuple[list[Verdict], list[Verdict]]] = {}
    for side, verdicts in enumerate((positives, negatives)):
        for verdict in verdicts:
            sides.setdefault(verdict.call if within else 0, ([], []))[side].append(verdict)
    return [(_scores(pos), _scores(neg)) for pos, neg in sides.values()]


def _by_call(
    verdicts: Sequence[Verdict],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Grades, truth and calls."""
    truth, calls = ([getattr(v, name) for v in verdicts] for name in ("truth", "call"))
    return np.array(_scores(verdicts)), np.array(truth, bool), np.array(calls, np.int64)


def _scores(verdicts: Sequence[Verdict]) -> list[float]:
    """NaN for a missing answer."""
    return [math.nan if v.score is None else v.score for v in verdicts]
