"""A figure of every latent -> the interval of its mean over latents."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from sae.core.shares import Interval

N_DRAWS = 2000
_AT_ONCE = 1 << 16
"""Figures that are drawn at once: few enough for a core's cache, and not each draw by a call."""


def mean_interval(values: Iterable[float]) -> Interval:
    """95% interval of the mean by a bootstrap over latents; NaN figures have no part.

    Whole latents are drawn, with all their images: images of one latent are not independent. The
    same values give the same interval. NaN for fewer than two.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) < 2:
        return Interval(math.nan, math.nan)
    rng, n = np.random.default_rng(0), len(known)
    step = max(1, _AT_ONCE // n)
    sizes = ((min(step, N_DRAWS - start), n) for start in range(0, N_DRAWS, step))
    means = np.concatenate([known[rng.integers(0, n, size)].mean(1) for size in sizes])
    return Interval(*(float(bound) for bound in np.quantile(means, [0.025, 0.975])))
