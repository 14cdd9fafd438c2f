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

Floats = NDArray[np.float64]

SHAPE = 0.4
"""How critical values fall from look to look (Wang and Tsiatis 1987): 1/2 keeps them equal
(Pocock), 0 asks for most at the first looks (O'Brien and Fleming)."""
ALPHA = 0.05
"""Share of the tests of which an interval, at any look, leaves out the truth."""
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
