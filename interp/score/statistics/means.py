"""A figure of every latent -> the interval of its mean over latents."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from sae.core.shares import Interval

N_DRAWS = 2000


def mean_interval(values: Iterable[float]) -> Interval:
    """95% interval of the mean by a bootstrap over latents; NaN figures have no part.

    Whole latents are drawn, with all their images: images of one latent are not independent. The
    same values give the same interval. NaN for fewer than two.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) < 2:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(0)
    means = [known[rng.integers(0, len(known), len(known))].mean() for _ in range(N_DRAWS)]
    return Interval(*(float(bound) for bound in np.quantile(means, [0.025, 0.975])))
