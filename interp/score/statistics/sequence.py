"""Parts of a test that are looked at one after the other -> how wide the interval at each look is.

Whoever looks at an ordinary 95% interval after every step and stops where it leaves out a value is
wrong far more often than in 5% of the tests. Here the intervals of all looks together hold the
truth in 95%, so that it does not matter why a test ends, nor when.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from interp.score.metrics import Z95
from sae.core.shares import Interval

Floats = NDArray[np.float64]

SHAPE = 0.4
"""How critical values fall from look to look (Wang and Tsiatis 1987): 1/2 keeps them equal
(Pocock), 0 asks for most at the first looks (O'Brien and Fleming)."""
ALPHA = 0.05
"""Share of the tests of which an interval, at any look, leaves out the truth."""
UNLIKELY = 0.1
"""A test ends where what it is for has a chance below this one to come about by its end."""
_NODES = 80


@lru_cache(maxsize=1024)
def critical_values(shares: tuple[float, ...], alpha: float = ALPHA) -> tuple[float, ...]:
    """Standard errors on either side of an estimate, look by look.

    `shares`: of all images, those judged by each look; rising, the last one 1. An estimate that
    grows by independent images leaves one of the intervals with probability `alpha`, over all
    looks. (Group sequential test, inverted at each look: Jennison and Turnbull 2000, chapters 2, 9
    and 19; AUROC as one: Zhou, Obuchowski and McClish 2011, 6.5.)
    """
    from scipy.optimize import brentq

    if len(shares) == 1 and alpha == ALPHA:
        return (Z95,)
    times = np.array(shares, float)
    shape = times ** (SHAPE - 0.5)
    factor = brentq(lambda c: _crossing(times, c * shape) - alpha, 0.5, 8.0, xtol=1e-9)
    return tuple(float(value) for value in factor * shape)


def chances_ahead(interval: Interval, z: float, share: float, z_end: float) -> tuple[float, float]:
    """How likely it is that at the end the interval of an area lies above 1/2, and below it.

    `interval` is that of `z` standard errors now, with `share` of all images judged; at the end it
    is one of `z_end`. What is judged so far is all that is known of what is to come, on the logit
    scale, on which 1/2 is 0 (predictive power: Jennison and Turnbull 2000, 10.3). (1, 1) of an
    interval that reaches 0 or 1.
    """
    from scipy.special import logit, ndtr

    if not 0 < interval.low <= interval.high < 1:
        return 1.0, 1.0
    low, high = (float(logit(bound)) for bound in interval)
    lead, error = (low + high) / 2, (high - low) / 2 / z
    needed, spread = z_end * error * math.sqrt(share), error * math.sqrt(1 - share)
    return float(ndtr((lead - needed) / spread)), float(ndtr((-lead - needed) / spread))


def chance_of_at_most(most: float, n_bad: int, n_seen: int, n_all: int) -> float:
    """How likely it is that of `n_all` at most `most` are bad, of which `n_bad` of `n_seen` are.

    What is seen so far is all that is known of the rest (Jeffreys' prior).
    """
    if n_seen == n_all:  # of every fixed test
        return float(n_bad <= most)
    from scipy.stats import betabinom

    rest = betabinom(n_all - n_seen, n_bad + 0.5, n_seen - n_bad + 0.5)
    return float(rest.cdf(math.floor(most) - n_bad))


def level_of(z: float) -> float:
    """Of an interval of `z` standard errors on either side."""
    return 1 - ALPHA if z == Z95 else round(math.erf(z / math.sqrt(2)), 6)


def _crossing(times: Floats, bounds: Floats) -> float:
    """Chance that a random walk, seen at `times`, is ever beyond bounds * sqrt(times)."""
    nodes, node_weights = np.polynomial.legendre.leggauss(_NODES)
    places, mass = np.zeros(1), np.ones(1)  # of the walk that has not crossed so far
    before = 0.0
    for time, bound in zip(times.tolist(), bounds.tolist(), strict=True):
        edge = bound * math.sqrt(time)
        step = math.sqrt(time - before)
        reached = edge * nodes
        moves = (reached[:, None] - places[None, :]) / step
        density = np.exp(-(moves**2) / 2) @ mass / (step * math.sqrt(2 * math.pi))
        places, mass, before = reached, edge * node_weights * density, time
    return 1 - float(mass.sum())
