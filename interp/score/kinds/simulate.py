"""A label and held-out images -> predicted activations, 0 to 10, and how they follow the true ones.

The images are those of `detect`, in the same grids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from interp.records.tasks import Measured, Trial
from interp.score.kinds.task import Case, Drawn, TaskKind, detect_grids, tell_label
from interp.score.metrics import Numbers, spearman
from sae.core.shares import Interval

MOST = 10
_Z95 = 1.959963984540054


def draw(case: Case) -> tuple[Drawn, ...]:
    """The grids of `detect`; the truth of each image is its activation."""
    return tuple(Drawn(grid, tuple(one.act for one in grid)) for grid in detect_grids(case))


def measure(trials: Sequence[Trial], _latent: int) -> Measured:
    """Spearman over all images; in `more` Pearson, and both among the active images alone.

    An image without an answer counts as the mean of the answers, which says nothing of it.
    """
    act = np.array([true for trial in trials for true in trial.truth], float)
    said = np.array([math.nan if a is None else a for t in trials for a in t.answer], float)
    if not np.isnan(said).all():
        said = np.where(np.isnan(said), np.nanmean(said), said)
    more: dict[str, float] = {}
    for where, chosen in (("", act >= 0), ("_active", act > 0)):
        for name, of, spread in (("pearson", pearson, 0.0), ("spearman", spearman, 0.5)):
            found = of(act[chosen], said[chosen])
            bounds = correlation_interval(found, int(chosen.sum()), spread)
            more |= {name + where: found, f"{name + where}_low": bounds.low}
            more[f"{name + where}_high"] = bounds.high
    value, low, high = (more.pop(f"spearman{part}") for part in ("", "_low", "_high"))
    return Measured(value, low, high, 0.0, len(act), more)


def pearson(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation; NaN below 3 pairs, or when a side is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def correlation_interval(found: float, n: int, spread: float) -> Interval:
    """95% interval by Fisher's z with the variance (1 + `spread` r²) / (n - 3).

    `spread` is 0 for Pearson's, 1/2 for Spearman's (Bonett and Wright 2000). Simulated with 20
    active and 20 silent images and whole answers it covers 90 to 97%, a bootstrap 91 to 97%.
    """
    if math.isnan(found) or n < 4:
        return Interval(math.nan, math.nan)
    error = math.sqrt((1 + spread * found * found) / (n - 3))
    middle = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, found)))
    return Interval(math.tanh(middle - _Z95 * error), math.tanh(middle + _Z95 * error))


KIND = TaskKind(
    name="simulate",
    draw=draw,
    measure=measure,
    by_clip="grades",
    template="simulate",
    most=MOST,
    tells=tell_label,
)
