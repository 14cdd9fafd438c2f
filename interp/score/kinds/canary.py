"""A grid with a picture of ours in it -> does the judge look, and does it keep the letters apart?

Two images of a grid of `detect` give way to a solid black triangle and to a blank tile, and the
label is "solid black triangle". What is asked follows from the latent's number. A few are asked
three times over a run: a judge that changes meanwhile answers them otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from interp.records.tasks import CANARY, CANARY_START, DETECT, Measured, TaskScore, Trial
from interp.records.types import Explanation
from interp.score.kinds.checks import n_again
from interp.score.kinds.detect import told
from interp.score.kinds.task import Case, Drawn, TaskKind, detect_grids
from interp.score.sampling import turn_of
from sae.core.shares import wilson_interval

LABEL = "solid black triangle"
TRIANGLE, BLANK = "canary-triangle", "canary-blank"
"""In the place of image ids."""
MOST_BLANK = 10
"""Grade of the blank tile, at most."""
LEAST_TRIANGLE = 50
"""Grade of the triangle, at least, beside being the highest."""
LEAST_LATENTS = 10
"""A run of so many latents has one canary at least."""
N_REPEATED = 4
"""Latents whose first canary is asked at the start and half way too."""
DRIFT = 10.0
"""Alarm: the mean error of the same canaries grows or falls by so many points."""
_SIDE = 224
_LEAST_TILES = 4
_STREAM = 15


def canary(share: float, always: int | None = None) -> TaskKind:
    """A share of the grids, and one of the latent `always`."""
    return TaskKind(
        name=CANARY,
        draw=partial(_draw, share, always),
        measure=_measure,
        by_clip="",
        template=DETECT,
        needs_label=False,
        whole=True,
        tells=_tell,
        own_pictures={TRIANGLE: _triangle, BLANK: _blank},
    )


def repeat_canaries(name: str, canary: TaskKind) -> TaskKind:
    """The first canary of each latent at an earlier moment, its pictures in another order."""
    return replace(canary, name=name, draw=partial(_draw_first, canary, name == CANARY_START))


def first_in_turn(latents: Iterable[int]) -> list[int]:
    """Those that are asked about first, where a share of a run is less than one question."""
    return sorted(latents, key=lambda latent: (-turn_of(latent), latent))


def passes(trial: Trial) -> bool:
    """Whether no image has a higher grade than the triangle, which fits, and the blank tile does
    not fit."""
    grades = dict(zip(trial.shown, trial.answer, strict=True))
    triangle, blank = grades[TRIANGLE], grades[BLANK]
    if triangle is None or blank is None:
        return False
    best = max(grade for grade in trial.answer if grade is not None)
    return best == triangle >= LEAST_TRIANGLE and blank <= MOST_BLANK


def canaries_of(lines: Iterable[TaskScore]) -> dict[str, float]:
    """How many canaries were answered, and the share that passed with Wilson's interval; {} without
    any."""
    said = [
        passes(trial)
        for line in lines
        for trial in line.trials
        if any(answer is not None for answer in trial.answer)
    ]
    if not said:
        return {}
    low, high = wilson_interval(sum(said), len(said))
    share = sum(said) / len(said)
    return {"n": len(said), "passed": share, "passed_low": low, "passed_high": high}


def drift_of(
    start: Iterable[TaskScore], half: Iterable[TaskScore], end: Iterable[TaskScore]
) -> dict[str, float]:
    """The same canaries at the three moments, those that were answered at all that were reached:
    how many, shares passed, mean errors; and the largest change of the error. {} of one moment."""
    found = {"start": _by_pictures(start), "half": _by_pictures(half), "end": _by_pictures(end)}
    reached = {name: trials for name, trials in found.items() if trials}
    common = sorted(set.intersection(*map(set, reached.values())) if reached else ())
    if "start" not in reached or len(reached) < 2 or not common:
        return {}
    figures: dict[str, float] = {"repeated": len(common)}
    for name, trials in reached.items():
        figures[f"{name}_passed"] = float(np.mean([passes(trials[one]) for one in common]))
        figures[f"{name}_error"] = float(np.mean([_error(trials[one]) for one in common]))
    changes = [figures[f"{name}_error"] - figures["start_error"] for name in reached]
    return figures | {"drift": max(changes, key=abs)}


def has_drifted(figures: Mapping[str, float]) -> bool:
    """Whether `drift_of` is more than an answer now and then: the mean error has changed by `DRIFT`
    or more, or of those that passed at the start half or fewer pass later."""
    if "drift" not in figures:
        return False
    first = figures["start_passed"]
    later = min(figures.get(f"{name}_passed", first) for name in ("half", "end"))
    return abs(figures["drift"]) >= DRIFT or 2 * later <= first > 0


def _by_pictures(lines: Iterable[TaskScore]) -> dict[tuple[str, ...], Trial]:
    """The trials with an answer by latent and pictures, in whatever order these were shown."""
    return {
        (str(line.latent), *sorted(trial.shown)): trial
        for line in lines
        for trial in line.trials
        if any(answer is not None for answer in trial.answer)
    }


def _error(trial: Trial) -> float:
    """Mean distance of a grade from 100 for the triangle, from 0 for all else."""
    pairs = zip(trial.truth, trial.answer, strict=True)
    known = [abs(grade - 100 * (truth or 0)) for truth, grade in pairs if grade is not None]
    return float(np.mean(known))


def _draw_first(canary: TaskKind, is_start: bool, case: Case) -> tuple[Drawn, ...]:
    return tuple(_in_another_order(one, is_start) for one in canary.draw(case)[:1])


def _in_another_order(drawn: Drawn, reverse: bool) -> Drawn:
    """Reversed, or with the second half first."""
    places = list(range(len(drawn.examples)))
    half = len(places) // 2
    places = places[::-1] if reverse else places[half:] + places[:half]
    return Drawn(
        tuple(drawn.examples[at] for at in places), tuple(drawn.truth[at] for at in places)
    )


def _draw(share: float, always: int | None, case: Case) -> tuple[Drawn, ...]:
    most = -(-(case.config.n_positive + case.config.n_negative) // case.config.n_tiles)
    n = max(n_again(share, most, case.latent), int(case.latent == always))
    if not n:
        return ()  # without a look at the images: it is so of most latents
    rng = np.random.default_rng([_STREAM, case.latent])
    grids = [grid for grid in detect_grids(case) if len(grid) >= _LEAST_TILES]
    drawn = []
    for place in sorted(rng.permutation(len(grids))[:n].tolist()):
        shown = list(grids[place])
        triangle, blank = rng.permutation(len(shown))[:2].tolist()
        shown[triangle] = replace(shown[triangle], image_id=TRIANGLE, heat=None)
        shown[blank] = replace(shown[blank], image_id=BLANK, heat=None)
        truth = tuple(float(slot == triangle) for slot in range(len(shown)))
        drawn.append(Drawn(tuple(shown), truth))
    return tuple(drawn)


def _measure(trials: Sequence[Trial], _latent: int) -> Measured:
    """Share that passed; its interval is of a run (`canaries_of`)."""
    share = float(np.mean([passes(trial) for trial in trials]))
    return Measured(share, math.nan, math.nan, math.nan, len(trials), {})


def _tell(_test: Explanation | None, _drawn: Drawn) -> Mapping[str, Any]:
    return told(LABEL, "")


@cache
def _blank() -> Image.Image:
    return Image.new("RGB", (_SIDE, _SIDE), "white")


@cache
def _triangle() -> Image.Image:
    image = _blank().copy()
    corners = [(_SIDE // 2, _SIDE // 6), (_SIDE // 6, 5 * _SIDE // 6), (5 * _SIDE // 6,) * 2]
    ImageDraw.Draw(image).polygon(corners, fill="black")
    return image
