"""Grades by question and letter -> does the judge look at all?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from interp.records.types import Score
from interp.score.agreement import FITS, grids_of
from interp.score.metrics import spearman

Answer = tuple[float | None, ...]
"""Grades of one question, by letter."""

CONSTANT = "the judge gave every image the same grade"
REPEATED = "the judge answered every question with the same grades, whatever was shown"
BY_PLACE = "the judge's grades follow the place of the letter"
ONE_SIDE = "the judge put every image on the same side of 50"
LEAST_QUESTIONS = 3
"""Of a latent, and 4 times as many of a run: fewer say nothing."""
_PLACE = 0.8
"""Rank correlation of a latent's grades with their places, beyond which they follow these."""
_RUN_PLACE = 0.3
"""Share of the variance of a run's grades that goes with the letter."""


def lazy_notes(answers: Sequence[Answer]) -> list[str]:
    """What is odd about the grades of one latent, a question each; [] for a judge who looks."""
    known = [grade for answer in answers for grade in answer if grade is not None]
    if len(answers) < LEAST_QUESTIONS or not known:
        return []
    if len(set(known)) == 1:
        return [CONSTANT]
    notes = []
    if _most_alike(answers) == len(answers):
        notes.append(REPEATED)
    placed = [(g, at) for answer in answers for at, g in enumerate(answer) if g is not None]
    if abs(spearman(*zip(*placed, strict=True))) >= _PLACE:
        notes.append(BY_PLACE)
    if all(grade >= FITS for grade in known) or all(grade < FITS for grade in known):
        notes.append(ONE_SIDE)
    return notes


@dataclass(frozen=True)
class Habits:
    """How a judge answers over a run, whatever is shown: shares of questions and of grades."""

    n_questions: int
    constant: float
    """Share of the questions in which all images got one grade."""
    repeated: float
    """Share of the other questions that got the commonest answer, letter by letter."""
    by_place: float
    """Share of the variance of the grades that goes with the letter; chance is near 0."""
    above: float
    """Share of the grades from 50 on; half of the images are active."""

    def warnings(self) -> list[str]:
        """What is wrong; [] where nothing is."""
        if self.n_questions < 4 * LEAST_QUESTIONS:
            return []
        found = {
            "gives all images of a question the same grade": self.constant >= 0.7,
            "gives question after question the same answer": self.repeated >= 0.5,
            "grades by the place of the letter": self.by_place >= _RUN_PLACE,
            "grades nearly every image at 50 or above": self.above >= 0.95,
            "grades nearly every image below 50": self.above <= 0.05,
        }
        return [f"the judge {habit}" for habit, holds in found.items() if holds]


def habits_of(scores: Iterable[Score]) -> Habits:
    """Over the scores, with their verdicts, of one judge."""
    answers = [
        tuple(one.score for one in grid) for score in scores for grid in grids_of(score.verdicts)
    ]
    answers = [answer for answer in answers if len(answer) > 1]
    varied = [answer for answer in answers if len(set(answer)) > 1]
    grades = [grade for answer in answers for grade in answer if grade is not None]
    n = len(answers)
    return Habits(
        n_questions=n,
        constant=1 - len(varied) / n if n else math.nan,
        repeated=_most_alike(varied) / len(varied) if len(varied) > 1 else 0.0,
        by_place=_place_share(varied),
        above=sum(grade >= FITS for grade in grades) / len(grades) if grades else math.nan,
    )


def _most_alike(answers: Sequence[Answer]) -> int:
    """How many questions got the commonest answer; shorter ones count where they begin alike."""
    if not answers:
        return 0
    shortest = min(map(len, answers))
    return Counter(answer[:shortest] for answer in answers).most_common(1)[0][1]


def _place_share(answers: Sequence[Answer]) -> float:
    """Variance between letters over all variance, less what chance gives (epsilon squared)."""
    placed = [(at, g) for answer in answers for at, g in enumerate(answer) if g is not None]
    if len(placed) < 2:
        return 0.0
    places, grades = np.array([at for at, _ in placed]), np.array([g for _, g in placed], float)
    total = float(((grades - grades.mean()) ** 2).sum())
    means = {at: grades[places == at].mean() for at in np.unique(places)}
    within = float(((grades - np.array([means[at] for at in places])) ** 2).sum())
    freedom = len(grades) - len(means)
    if not total or freedom <= 0:
        return 0.0
    return max(0.0, (total - within - (len(means) - 1) * within / freedom) / total)
