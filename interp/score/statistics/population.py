"""Judged images and how many held-out images each stands for -> figures of all of these.

The judged images are no even sample: half are active, a quarter nearly fire the latent. Weighted by
what they stand for, they say what the label is worth where it is used: on all images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.score.metrics import Z95
from sae.core.shares import Interval

Floats = NDArray[np.float64]

YES = 50.0
"""Grade from which on the judge says that the label fits."""
UNSEEN = 0.5
"""Images, and at most a twentieth of the silent ones judged, that may be graded as active ones are
although none was seen: a few silent images cannot show that none of a million is."""
_ACTIVE, _SILENT = 0, 1


class Estimate(NamedTuple):
    """A figure with its 95% interval; NaN where there is nothing to go on."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


class Judged(NamedTuple):
    """Judged images, one entry each."""

    grades: Floats
    """0 to 100; NaN without an answer."""
    acts: Floats
    weights: Floats
    """Held-out images that it stands for."""
    kinds: NDArray[np.int64]
    """Parts of the held-out images that were drawn from apart: 0 active, 1 silent, 2 hard."""


def rho(judged: Judged, z: float = Z95) -> Estimate:
    """Pearson correlation of grade and activation over all held-out images.

    A missing answer counts as the mean of the others. Pearson and not Spearman: with a share p of
    active images, ties at 0 keep Spearman's below sqrt(3 p (1 - p)), .17 at 1%, for any judge. 0
    in [-1, 1] where all grades are the same; NaN without active or without silent images. `z`:
    normal quantile of the interval.
    """
    # Variance among few silent images is under-estimated or over-estimated by chance, so that a
    # correlation is skewed: it is taken apart into slope and residual deviation, and their
    # intervals (Student's t, chi-square) are put together again (MOVER: Zou and Donner 2008;
    # bias of the ratio: Hedges 1981). Simulated cover .93 to .97 at 20 + 20 images; a percentile
    # bootstrap over images covers .75 to .94 there and .51 to .87 at 8 + 8.
    parts = _parts(judged)
    if parts is None:
        return Estimate()
    grade_var, act_var, shared = _moments(parts)
    if not grade_var > 0 or not act_var > 0:
        return Estimate(0.0, -1.0, 1.0) if act_var > 0 else Estimate()
    slope = shared / act_var
    explained = slope * math.sqrt(act_var)  # deviation of grades that goes with the activation
    rest = max(grade_var - explained**2, 1e-9 * grade_var)
    n_free = _degrees_of_rest(parts, slope, rest)
    ratio = explained / math.sqrt(rest)
    upper = _upper(z)
    half = _error_of_explained(parts, shared, act_var, upper)
    low, high = _join(explained, half, rest, n_free, _unseen(parts), upper)
    value = ratio * (1 - 3 / max(4 * n_free - 1, 3.5))
    bounds = Interval(min(low, value), max(high, value))
    return Estimate(*(r / math.sqrt(1 + r * r) for r in (value, *bounds)))


def precision(judged: Judged, z: float = Z95) -> Estimate:
    """Share of active images among all held-out images that would be graded `YES` or more.

    Missing answers have no part; half a silent image more counts as so graded, lest ten that are
    not make the share 1. NaN where nothing was graded so high, or a side has no answer. Interval:
    Wilson's of the active and of the silent images so graded, put together as a ratio (MOVER-R,
    Donner and Zou 2012).
    """
    answered = np.isfinite(judged.grades)
    active = judged.kinds == _ACTIVE
    sides = [_share(judged, answered & side, z) for side in (active, ~active)]
    base = judged.weights[active].sum() / judged.weights.sum()
    (hits, hit_bounds, _), (alarms, alarm_bounds, n_silent) = sides
    if math.isnan(hits) or math.isnan(alarms) or hits == alarms == 0 or not 0 < base < 1:
        return Estimate()
    if hits == 0:
        return Estimate(
            0.0, 0.0, _precise(base, _ratio(alarms, alarm_bounds, hits, hit_bounds, -1))
        )
    ratios = [_ratio(alarms, alarm_bounds, hits, hit_bounds, side) for side in (1, -1)]
    usual = (alarms * n_silent + 0.5) / (n_silent + 1) / hits
    low, high = (_precise(base, ratio) for ratio in ratios)
    return Estimate(min(max(_precise(base, usual), low), high), low, high)


class _Part(NamedTuple):
    """The images of one kind, centred on the mean of all."""

    share: float
    """Of all held-out images."""
    weights: Floats  # (n,) sum 1
    grades: Floats
    acts: Floats
    answered: float
    """Share of the images with an answer; the others have the mean of all for a grade."""

    @property
    def n(self) -> float:
        """Images of equal weights that would be as good."""
        return float(1 / (self.weights**2).sum())

    @property
    def n_free(self) -> float:
        """Degrees of freedom of the variance of the grades.

        Where some are the mean itself the others are farther from it than those of a normal
        distribution: its fourth moment, 3, is one of 3 / answered, and chance moves the variance as
        much as that of fewer images does.
        """
        return max((self.n - 1) * 2 * self.answered / (3 - self.answered), 1)

    def mean(self, values: Floats) -> float:
        return float(self.weights @ values)

    def covariance(self, x: Floats, y: Floats) -> float:
        """Unbiased; 0 of a single image."""
        middle = (x - self.mean(x)) * (y - self.mean(y))
        return self.mean(middle) / (1 - 1 / self.n) if len(x) > 1 else 0.0


def _parts(judged: Judged) -> list[_Part] | None:
    """By kind; None where active or silent images are missing."""
    answered = np.isfinite(judged.grades)
    kinds = [judged.kinds == kind for kind in np.unique(judged.kinds)]
    weights, total = judged.weights, judged.weights.sum()
    if not {_ACTIVE, _SILENT} <= set(judged.kinds.tolist()) or not answered.any():
        return None
    if not all(weights[kind].sum() > 0 for kind in kinds):
        return None
    mean = np.average(judged.grades[answered], weights=weights[answered])
    grades = np.where(answered, judged.grades, mean) - mean
    acts = judged.acts - np.average(judged.acts, weights=weights)
    return [
        _Part(
            float(weights[k].sum() / total),
            weights[k] / weights[k].sum(),
            grades[k],
            acts[k],
            float(answered[k].mean()),
        )
        for k in kinds
    ]


def _moments(parts: list[_Part]) -> tuple[float, float, float]:
    """Variance of the grades and of the activations, and their covariance; unbiased."""

    def moment(pick_x: str, pick_y: str) -> float:
        total = 0.0
        for part in parts:
            x, y = getattr(part, pick_x), getattr(part, pick_y)
            within = part.covariance(x, y)
            between = part.mean(x) * part.mean(y)
            total += part.share * (within + between - (1 - part.share) * within / part.n)
        return total

    return moment("grades", "grades"), moment("acts", "acts"), moment("grades", "acts")


def _error_of_explained(parts: list[_Part], shared: float, act_var: float, upper: float) -> float:
    """Half the width of the interval of the deviation explained, by Student's t."""
    from scipy.stats import t

    scale = math.sqrt(act_var)
    variance = spread = 0.0
    for part in parts:
        pull = part.grades * part.acts / scale - shared / (2 * scale**3) * part.acts**2
        own = part.share**2 * part.covariance(pull, pull) / part.n
        variance += own
        spread += own**2 / max(part.n - 1, 1)
    n_free = max(variance**2 / spread, 1) if spread > 0 else 1e3
    return float(t.ppf(upper, n_free) * math.sqrt(variance))


def _degrees_of_rest(parts: list[_Part], slope: float, rest: float) -> float:
    """Degrees of freedom of the residual variance, of the shares and spreads of the parts."""
    total = 0.0
    for part in parts:
        left = part.grades - slope * part.acts
        total += 2 * (part.share * part.covariance(left, left)) ** 2 / part.n_free
    return float(np.clip(2 * rest**2 / total, 1, 1e4)) if total > 0 else 1e4


def _unseen(parts: list[_Part]) -> float:
    """What silent images graded like active ones, of which none was seen, add to the variance."""
    active, silent = parts[_ACTIVE], parts[_SILENT]
    mass = min(UNSEEN, silent.n / 20)
    share = mass / (silent.n + mass)
    gap = active.mean(active.grades) - silent.mean(silent.grades)
    return silent.share * share * (1 - share) * gap**2


def _upper(z: float) -> float:
    """Share of a normal distribution below `z`."""
    from scipy.stats import norm

    return float(norm.cdf(z))


def _join(
    x: float, half: float, rest: float, n_free: float, unseen: float, upper: float
) -> tuple[float, float]:
    """Bounds of x / sqrt(rest) from those of x and of rest."""
    from scipy.stats import chi2

    ratio = abs(x) / math.sqrt(rest)
    small, large = (rest * n_free / chi2.ppf(q, n_free) for q in (upper, 1 - upper))
    toward, away = abs(x) / math.sqrt(large + unseen), abs(x) / math.sqrt(small)
    own = half / math.sqrt(rest)
    near, far = ratio - math.hypot(own, ratio - toward), ratio + math.hypot(own, away - ratio)
    if near < 0 < abs(x) - half:  # x alone is not 0: on the scale of logarithms it stays so
        logs = math.log(abs(x) / (abs(x) - half)), math.log(ratio / toward)
        near = ratio * math.exp(-math.hypot(*logs))
    return (near, far) if x > 0 else (-far, -near)


def _share(judged: Judged, chosen: NDArray[np.bool_], z: float) -> tuple[float, Interval, float]:
    """Weighted share of `YES`, Wilson's interval, and the images of equal weight it stands on."""
    weights = judged.weights[chosen]
    if not weights.sum() > 0:
        return math.nan, Interval(math.nan, math.nan), 0.0
    share = float(np.average(judged.grades[chosen] >= YES, weights=weights))
    n = float(weights.sum() ** 2 / (weights**2).sum())
    return share, _wilson(share, n, z), n


def _wilson(share: float, n: float, z: float) -> Interval:
    """Wilson's interval of a share of n images, which need not be a whole number."""
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(max(share * (1 - share), 0) / n + z * z / (4 * n * n))
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return Interval(max(low, 0.0) if share > 0 else 0.0, min(high, 1.0) if share < 1 else 1.0)


def _ratio(top: float, tops: Interval, bottom: float, bottoms: Interval, side: int) -> float:
    """Bound of top / bottom: the upper one for side 1."""
    t, b = (tops.high, bottoms.low) if side > 0 else (tops.low, bottoms.high)
    under = b * (2 * bottom - b)
    product = top * bottom
    if under <= 0:
        return math.inf if side > 0 else t / b
    return (product + side * math.sqrt(max(product**2 - t * (2 * top - t) * under, 0))) / under


def _precise(base: float, ratio: float) -> float:
    return 0.0 if math.isinf(ratio) else base / (base + (1 - base) * ratio)
