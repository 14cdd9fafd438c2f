"""A judge's grades and grades of the same images asked otherwise -> how far they agree.

Intervals are a bootstrap over latents, whose images stay together: 2,000 draws, one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.records.nulls import FOILS
from interp.records.tasks import ALONE, CANARY, RETEST, SECOND_JUDGE, TaskScore
from interp.records.types import Score, Verdict
from interp.score.kinds.asking import COLUMNS
from interp.score.kinds.canary import has_drifted
from interp.score.sampling import SampleConfig, even_sizes
from sae.core.shares import Interval

N_DRAWS = 2000
LEAST_LATENTS = 5
"""With fewer latents there is no interval."""
FITS = 50
"""A grade from here on says that the label fits: what kappa is of."""
LEAK, SHIFT = 0.1, 10.0
"""Alarm: a fitting neighbour moves a grade by this share of 100; grades alone differ by so many
points more than those asked twice."""
FOIL_SHIFT = 5.0
"""Alarm: foils raise or lower the label's own grades by so many points."""
LEAST_PASSED = 0.9
"""Of the canaries."""
LEAST_AGREEMENT, LEAST_KAPPA = 0.7, 0.4

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""(m, 7) sums over images, as `_sums` gives them, to (m,) figures."""


class Pairs(NamedTuple):
    """The same images graded twice, by latent."""

    latent: list[int]
    first: list[float]
    again: list[float]
    around: list[float]
    """Share of active images among the neighbours of the first time."""

    def bounded(
        self, name: str, of: Statistic, x: Sequence[float], y: Sequence[float]
    ) -> dict[str, float]:
        sums = _sums(self.latent, x, y)
        low, high = _interval(sums, of)
        return {name: float(of(sums.sum(0)[None])[0]), f"{name}_low": low, f"{name}_high": high}


def agreement_of(
    scores: Mapping[int, Score], tasks: Iterable[TaskScore], kind: str
) -> dict[str, float]:
    """Figures of one check over a run; {} where nothing was asked twice.

    `scores`: by latent, with verdicts; `tasks`: the last lines of the check, by latent.
    """
    lines = [line for line in tasks if line.latent in scores]
    pairs = _pairs(scores, lines)
    if not pairs.first:
        return {}
    first, again = pairs.first, pairs.again
    figures: dict[str, float] = {"n": len(first), "n_latents": len(set(pairs.latent))}
    figures |= pairs.bounded("correlation", _correlation, first, again)
    figures |= pairs.bounded("difference", _difference, first, again)
    if kind == RETEST:
        figures["same_by_letter"] = _same_by_letter(scores, lines)
        figures |= _foil_shift(scores, lines)
    if kind == ALONE:
        change = [one - other for one, other in zip(first, again, strict=True)]
        figures |= pairs.bounded("leak", _slope, pairs.around, change)
    if kind == SECOND_JUDGE:
        yes = [[float(grade >= FITS) for grade in grades] for grades in (first, again)]
        figures |= pairs.bounded("kappa", _kappa, *yes)
    return figures


def _foil_shift(scores: Mapping[int, Score], lines: Iterable[TaskScore]) -> dict[str, float]:
    """Mean grade with foils in the question less that of the same images without."""
    asked = {latent for latent, one in scores.items() if one.nulls and one.nulls.how == FOILS}
    pairs = _pairs(scores, (line for line in lines if line.latent in asked))
    if not pairs.first:
        return {}
    shift = pairs.bounded("foil_shift", _shift, pairs.first, pairs.again)
    return {**shift, "foil_n": len(pairs.first)}


def people_and_judge(people: Mapping[int, bool], judge: Mapping[int, bool]) -> dict[str, float]:
    """Cohen's kappa, with its interval, of what people and the judge say of labels, by latent.

    Only latents with both count; {} without any.
    """
    both = sorted(people.keys() & judge.keys())
    if not both:
        return {}
    x, y = ([float(by[latent]) for latent in both] for by in (people, judge))
    agreed = fmean(a == b for a, b in zip(x, y, strict=True))
    kappa = Pairs(both, x, y, []).bounded("kappa", _kappa, x, y)
    return {"n": float(len(both)), "agreed": agreed, **kappa}


def warnings_of(checks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is wrong with the judge by these figures, by check; [] where nothing is."""
    again, alone, second = (checks.get(kind, {}) for kind in (RETEST, ALONE, SECOND_JUDGE))
    canaries, shift = checks.get(CANARY, {}), again.get("foil_shift", 0.0)
    noise = again.get("difference", 0.0)
    said = []
    if again.get("same_by_letter", 0.0) >= 0.5:
        said.append("the judge answers the same when the images stand in the reverse order")
    elif again.get("correlation", 1.0) < LEAST_AGREEMENT:
        said.append("asked twice the judge does not repeat its grades")
    leaks = abs(alone.get("leak", 0.0)) >= LEAK and not _holds_zero(alone, "leak")
    shifts = alone.get("difference", 0.0) - noise >= SHIFT
    if leaks or (shifts and alone.get("difference_low", math.nan) > noise):
        said.append(
            "images of one question change each other's grades: use --layout separate, or another "
            "judge"
        )
    if second.get("kappa", 1.0) < LEAST_KAPPA:
        said.append("a second judge does not agree on which images fit")
    if abs(shift) > FOIL_SHIFT and not _holds_zero(again, "foil_shift"):
        said.append(
            f"foils in a question change the label's own grades by {shift:+.1f} points: score with "
            "--nulls none"
        )
    if canaries.get("passed", 1.0) < LEAST_PASSED:
        failed = round((1 - canaries["passed"]) * canaries["n"])
        said.append(
            f"the judge failed {failed} of {canaries['n']:.0f} canaries, pictures that cannot be "
            "mistaken: it does not look, or mixes up the letters"
        )
    if has_drifted(canaries):
        said.append(
            "the judge has changed since the start: of the same "
            f"{canaries['repeated']:.0f} canaries the mean error was {canaries['start_error']:.1f} "
            f"points and changed by {canaries['drift']:+.1f}; scores from before and after do not "
            "compare: name one version of the model, or its --provider, and score again"
        )
    return said


def neighbours(place: int, n: int) -> list[int]:
    """The places beside, above and below one of `n` in a grid."""
    row = place // COLUMNS
    beside = [at for at in (place - 1, place + 1) if at // COLUMNS == row]
    return [at for at in (*beside, place - COLUMNS, place + COLUMNS) if 0 <= at < n]


def grids_of(verdicts: Sequence[Verdict]) -> list[tuple[Verdict, ...]]:
    """The questions in which the verdicts of a score were asked for, each in its order."""
    sizes = even_sizes(len(verdicts), SampleConfig().n_tiles) if verdicts else []
    asked = [call for call, size in enumerate(sizes) for _ in range(size)]  # as older files are
    grids: dict[int, list[Verdict]] = {}
    for verdict, call in zip(verdicts, asked, strict=True):
        grids.setdefault(call if verdict.call < 0 else verdict.call, []).append(verdict)
    return [tuple(grid) for grid in grids.values()]


def _pairs(scores: Mapping[int, Score], lines: Iterable[TaskScore]) -> Pairs:
    pairs = Pairs([], [], [], [])
    for line in lines:
        first = _grades(scores[line.latent])
        for trial in line.trials:
            for image_id, answer in zip(trial.shown, trial.answer, strict=True):
                if answer is None or image_id not in first:
                    continue
                grade, around = first[image_id]
                pairs.latent.append(line.latent)
                pairs.first.append(grade)
                pairs.again.append(answer)
                pairs.around.append(around)
    return pairs


def _grades(score: Score) -> dict[str, tuple[float, float]]:
    """By image its grade, and the share of active images among its neighbours."""
    return {
        one.image_id: (
            one.score,
            float(np.mean([grid[at].truth for at in neighbours(place, len(grid))] or [False])),
        )
        for grid in grids_of(score.verdicts)
        for place, one in enumerate(grid)
        if one.score is not None
    }


def _same_by_letter(scores: Mapping[int, Score], lines: Iterable[TaskScore]) -> float:
    """Share of the repeated questions with different grades whose letters got the same again."""
    same = []
    for line in lines:
        grids = {
            tuple(one.image_id for one in grid)[::-1]: tuple(one.score for one in grid)
            for grid in grids_of(scores[line.latent].verdicts)
        }
        for trial in line.trials:
            before = grids.get(trial.shown)
            if before and len(set(before)) > 1 and before != before[::-1]:
                same.append(trial.answer == before)
    return float(np.mean(same)) if same else math.nan


def _sums(latents: Sequence[int], x: Sequence[float], y: Sequence[float]) -> Floats:
    """(latents, 7) sums over each latent's images of 1, x, y, xx, yy, xy and |x - y|."""
    a, b = np.array(x, float), np.array(y, float)
    columns = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b, np.abs(a - b)], 1)
    _, owner = np.unique(latents, return_inverse=True)
    sums = np.zeros((owner.max() + 1, columns.shape[1]))
    np.add.at(sums, owner, columns)
    return sums


def _interval(sums: Floats, of: Statistic) -> Interval:
    n = len(sums)
    if n < LEAST_LATENTS:
        return Interval(math.nan, math.nan)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=N_DRAWS)
    figures = of(drawn @ sums)
    if np.isnan(figures).all():
        return Interval(math.nan, math.nan)
    low, high = np.nanpercentile(figures, (2.5, 97.5))
    return Interval(float(low), float(high))


def _correlation(sums: Floats) -> Floats:
    n, x, y, xx, yy, xy, _ = sums.T
    return _over(n * xy - x * y, np.sqrt(np.maximum((n * xx - x * x) * (n * yy - y * y), 0)))


def _difference(sums: Floats) -> Floats:
    """Mean absolute difference."""
    return _over(sums[:, 6], sums[:, 0])


def _shift(sums: Floats) -> Floats:
    """Mean of the first less that of the second."""
    return _over(sums[:, 1] - sums[:, 2], sums[:, 0])


def _slope(sums: Floats) -> Floats:
    """Of the change of a grade on the share of active neighbours, per 100 points."""
    n, x, y, xx, _, xy, _ = sums.T
    return _over(n * xy - x * y, n * xx - x * x) / 100


def _kappa(sums: Floats) -> Floats:
    """Cohen's kappa of two judges' 0 and 1."""
    n, x, y, _, _, both, _ = sums.T
    agreed = (n - x - y + 2 * both) / n
    by_chance = (x * y + (n - x) * (n - y)) / (n * n)
    return _over(agreed - by_chance, 1 - by_chance)


def _over(top: Floats, bottom: Floats) -> Floats:
    """NaN where nothing varies: rounding leaves a trace of 0 there."""
    return np.where(bottom > 1e-9, top / np.maximum(bottom, 1e-9), math.nan)


def _holds_zero(figures: Mapping[str, float], name: str) -> bool:
    low, high = figures.get(f"{name}_low", math.nan), figures.get(f"{name}_high", math.nan)
    return not (low > 0 or high < 0)
