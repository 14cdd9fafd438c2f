"""The random streams of a scene: every kind of choice has its own, so none disturbs another."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.random import Generator

T = TypeVar("T")


class Stream(IntEnum):
    """The streams of one seed; never renumber them: every drawing would change."""

    DOMAIN = 0
    WHAT = 1
    LAYOUT = 2
    COLOUR = 3
    BACKGROUND = 4
    STROKE = 5
    GEOMETRY = 6
    HAND = 7
    LIGHT = 8
    NOISE = 9
    CAPTION = 10


def stream(seed: int, *key: int) -> Generator:
    """The generator of one stream of one seed; a longer key is a stream within a stream."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def pick(rng: Generator, choices: Sequence[T], p: Sequence[float] | None = None) -> T:
    """One of the choices, all alike or with probabilities `p`."""
    if p is None:
        return choices[int(rng.integers(len(choices)))]
    return choices[int(rng.choice(len(choices), p=p))]
