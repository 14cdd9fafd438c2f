"""A label and outlined regions -> does the label describe the region where the latent answers?

Of patch latents only. Each active image is shown twice, in two questions: once with its own region
outlined and once with the same outline moved to another place of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from interp.pictures.grid import Tile
from interp.pictures.heatmap import can_be_moved, moved_region, peak_region
from interp.records.tasks import Measured, Trial
from interp.score.kinds.task import (
    Case,
    Drawn,
    TaskKind,
    held_out,
    share_interval,
    shuffle_examples,
    tell_label,
)
from interp.score.metrics import auroc
from interp.score.sampling import draw_sample

N_IMAGES = 10
"""Active images; each is asked about twice."""
N_LEAST = 5
"""Fewer images whose region can be moved give no figure."""
RIGHT, MOVED = 1.0, 0.0
_STREAM = 13


def draw(case: Case) -> tuple[Drawn, ...]:
    """Two questions on the same images: what is right in one is moved in the other."""
    rng = np.random.default_rng([_STREAM, case.latent])
    positives = draw_sample(case.evidence, case.config).positives
    held_out(case, positives)
    heats = ((e, case.heat_of(e)) for e in positives)
    images = [e for e, heat in heats if heat is not None and can_be_moved(heat)][:N_IMAGES]
    if len(images) < N_LEAST:
        return ()
    turn = {e.image_id: slot % 2 for slot, e in enumerate(shuffle_examples(images, rng))}
    drawn = []
    for question in (0, 1):
        shown = shuffle_examples(images, rng)
        truth = (RIGHT if turn[e.image_id] == question else MOVED for e in shown)
        drawn.append(Drawn(tuple(shown), tuple(truth)))
    return tuple(drawn)


def mark(tile: Tile, truth: float) -> Tile:
    """The tile with the region of its strongest patch, or with that moved away."""
    assert tile.heat is not None
    heat = peak_region(tile.heat) if truth == RIGHT else moved_region(tile.image, tile.heat)
    return tile._replace(heat=heat)


def measure(trials: Sequence[Trial], _latent: int) -> Measured:
    """Share of images whose own region got more than the moved one; equal counts half.

    In `more` the AUROC of all grades, right against moved.
    """
    said: dict[tuple[str, float], float] = {}
    for trial in trials:
        for image_id, truth, answer in zip(trial.shown, trial.truth, trial.answer, strict=True):
            said[image_id, truth] = math.nan if answer is None else answer
    pairs = [(said[image_id, RIGHT], said[image_id, MOVED]) for image_id, truth in said if truth]
    hits = [0.5 if math.isnan(a - b) else float(np.sign(a - b) / 2 + 0.5) for a, b in pairs]
    interval = share_interval(hits)
    area = auroc([right for right, _ in pairs], [moved for _, moved in pairs])
    value = float(np.mean(hits)) if hits else math.nan
    return Measured(value, interval.low, interval.high, 0.5, len(hits), {"auroc": area})


KIND = TaskKind(
    name="fuzz",
    draw=draw,
    measure=measure,
    by_clip="",
    template="fuzz",
    outlined=True,
    tells=tell_label,
    mark=mark,
)
