"""The judge's own grids again -> does it answer the same in another order, alone, or as another?

The question is that of `detect`. What is asked again follows from the latent's number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from interp.records.tasks import ALONE, DETECT, RETEST, SECOND_JUDGE, Measured, Trial
from interp.records.types import Example
from interp.score.kinds.task import Case, Drawn, TaskKind, detect_grids, tell_label
from interp.score.sampling import n_grids, turn_of

Item = TypeVar("Item")

_STREAM = 14


def n_again(share: float, n: int, latent: int) -> int:
    """How many of a latent's `n` are asked again: over latents in a row `share` of all of them."""
    return min(n, int(share * n + turn_of(latent)))


def retest(share: float) -> TaskKind:
    """A share of the grids with their images in the reverse order."""
    return _kind(RETEST, partial(_some_grids, share, reverse=True))


def second(share: float) -> TaskKind:
    """A share of the grids as they are, for another judge."""
    return _kind(SECOND_JUDGE, partial(_some_grids, share, reverse=False))


def alone(share: float) -> TaskKind:
    """A share of the images, each in a question of its own."""
    return _kind(ALONE, partial(_some_images, share))


def _some_grids(share: float, case: Case, *, reverse: bool) -> tuple[Drawn, ...]:
    most = n_grids(case.config.n_positive + case.config.n_negative, case.config.n_tiles)
    if not n_again(share, most, case.latent):
        return ()  # without a look at the images: it is so of most latents
    grids = detect_grids(case)
    chosen = _choose(n_again(share, len(grids), case.latent), grids, case.latent)
    return tuple(_drawn(grid[::-1] if reverse else grid) for grid in chosen)


def _some_images(share: float, case: Case) -> tuple[Drawn, ...]:
    images = [example for grid in detect_grids(case) for example in grid]
    chosen = _choose(n_again(share, len(images), case.latent), images, case.latent)
    return tuple(_drawn((example,)) for example in chosen)


def _choose(n: int, among: Sequence[Item], latent: int) -> list[Item]:
    rng = np.random.default_rng([_STREAM, latent])
    return [among[index] for index in sorted(rng.permutation(len(among))[:n].tolist())]


def _drawn(grid: tuple[Example, ...]) -> Drawn:
    return Drawn(grid, tuple(float(example.is_positive) for example in grid))


def _measure(trials: Sequence[Trial], _latent: int) -> Measured:
    """No figure of one latent: what they say is counted over a run (`interp.score.agreement`)."""
    n = sum(len(trial.answer) for trial in trials)
    return Measured(math.nan, math.nan, math.nan, math.nan, n, {})


def _kind(name: str, draw: partial[tuple[Drawn, ...]]) -> TaskKind:
    return TaskKind(
        name=name,
        draw=draw,
        measure=_measure,
        by_clip="grades",
        template=DETECT,
        tells=tell_label,
    )
