"""Judges whose truth is known, and what a perfect count of all images would find of them.

A judge of `interp.score` is told letters and pictures alone; these look the truth up by image id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from interp.records.types import Evidence, Example
from interp.score.judge import Judgement, Pictures
from interp.score.statistics.population import Judged
from sae.core.files import sha256_hex

Rule = Callable[[Example, Random], float | None]
"""An image and its own source of chance -> grade 0 to 100, or None for no answer."""


@dataclass
class Oracle:
    """A judge that knows each image of some latents, and answers by a rule.

    Chance hangs on the image and `seed` alone: however many are at work, and in whatever order,
    the answers are the same. Its calls may differ in level, and answers may be lost.
    """

    truth: Mapping[str, Example]
    """Image id -> what it is for the latent in question."""
    rule: Rule
    offset: float = 0.0
    """Standard deviation of the level of a call, in grades."""
    lost: float = 0.0
    """Share of the answers that never come."""
    seed: int = 0
    name: str = "oracle"
    prompt: str = "truth"

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        shown = pictures()
        call = self._chance("call", *(tile.image_id for tile in shown))
        level = call.gauss(0, self.offset) if self.offset else 0.0
        scores: dict[str, float | None] = {}
        for tile in shown:
            chance = self._chance("image", tile.image_id)
            grade = self.rule(self.truth[tile.image_id], chance)
            gone = grade is None or chance.random() < self.lost
            scores[tile.letter] = None if gone else min(100.0, max(0.0, grade + level))
        missing = None in scores.values()
        return Judgement(scores, "refused" if missing else None, (), 0.0)

    def _chance(self, *what: str) -> Random:
        return Random(sha256_hex(f"{self.seed} {' '.join(what)}".encode()))


def truth_of(*evidence: Evidence) -> dict[str, Example]:
    """Image id -> example, of all images of some latents (each image of one latent only)."""
    return {e.image_id: e for one in evidence for e in one.examples}


def graded(area: float, deviation: float = 15.0) -> Rule:
    """Normal grades with this AUROC, active against silent, within a call."""
    shift = math.sqrt(2) * float(norm.ppf(area)) * deviation
    return lambda e, chance: 50 + shift * (e.is_positive - 0.5) + chance.gauss(0, deviation)


def hits(hit: float, false_alarm: float) -> Rule:
    """90 on a share `hit` of the active images and `false_alarm` of the others, else 10."""
    return lambda e, chance: (
        90.0 if chance.random() < (hit if e.is_positive else false_alarm) else 10.0
    )


def refusing(rule: Rule, active: float, silent: float) -> Rule:
    """The rule, but no answer on so large a share of the active and of the silent images."""

    def answer(e: Example, chance: Random) -> float | None:
        refused = chance.random() < (active if e.is_positive else silent)
        return None if refused else rule(e, chance)

    return answer


def circular(max_act: float) -> Rule:
    """Grades by the activation itself, whatever the label says."""
    return lambda e, chance: 100 * e.act / max_act


@dataclass(frozen=True)
class World:
    """All held-out images of a latent, and a judge of them with a known area."""

    area: float
    base_rate: float = 0.1
    offset: float = 0.0
    """Standard deviation of a call's level, in deviations of the grades."""
    lost: float = 0.0
    n_images: int = 5000

    @property
    def shift(self) -> float:
        return math.sqrt(2) * float(norm.ppf(min(self.area, 1 - 1e-12)))

    @property
    def target(self) -> float:
        """What the area is worth where an answer that is lost counts 1/2 in each pair."""
        return 0.5 + (self.area - 0.5) * (1 - self.lost) ** 2

    @cached_property
    def rho(self) -> float:
        """Correlation of grade and activation over a million images; a lost answer is the mean."""
        rng = np.random.default_rng(99)
        n = 400_000
        acts = np.where(np.arange(n) < self.base_rate * n, _activations(rng, n), 0.0)
        grades = self._grade(rng, acts > 0, 0.0)
        grades[rng.random(n) < self.lost] = grades.mean()
        return float(np.corrcoef(acts, grades)[0, 1])

    def judged(self, rng: np.random.Generator, n: int, n_calls: int = 1) -> Judged:
        """n + n judged images of a test, half of the silent ones hard; levels differ by call."""
        judged, _ = self.test(rng, n, n_calls)
        return judged

    def test(
        self, rng: np.random.Generator, n: int, n_calls: int
    ) -> tuple[Judged, NDArray[np.int64]]:
        """The same, and the call of each image."""
        calls = np.concatenate([rng.permutation(np.arange(n) % n_calls) for _ in range(2)])
        return self._judge(rng, calls), calls

    def test_in_turn(
        self, rng: np.random.Generator, sizes: Sequence[int]
    ) -> tuple[Judged, NDArray[np.int64]]:
        """The same in calls of these even sizes, each half active; of the others hard and silent
        ones take turns."""
        order = np.repeat(np.arange(len(sizes)), np.array(sizes) // 2)
        calls = np.concatenate([order, order[1::2], order[::2]])
        return self._judge(rng, calls), calls

    def part(self, judged: Judged, chosen: NDArray[np.bool_]) -> Judged:
        """Some of the images, which stand for all by themselves."""
        kinds = judged.kinds[chosen]
        some = (judged.grades[chosen], judged.acts[chosen], self._weigh(kinds), kinds)
        return Judged(*some)

    def _judge(self, rng: np.random.Generator, calls: NDArray[np.int64]) -> Judged:
        n = len(calls) // 2
        acts = np.concatenate([_activations(rng, n), np.zeros(n)])
        level = self.offset * rng.normal(size=calls.max() + 1)[calls]
        grades = self._grade(rng, acts > 0, level)
        grades[rng.random(2 * n) < self.lost] = math.nan
        n_silent = n // 2
        kinds = np.repeat([0, 1, 2], [n, n_silent, n - n_silent])
        return Judged(grades, acts, self._weigh(kinds), kinds)

    def _weigh(self, kinds: NDArray[np.int64]) -> NDArray[np.float64]:
        n, n_silent, n_hard = np.bincount(kinds, minlength=3)
        n_active = self.base_rate * self.n_images
        others = self.n_images - n_active - n_hard
        return np.array([n_active / n, others / n_silent, 1.0])[kinds]

    def _grade(
        self,
        rng: np.random.Generator,
        active: NDArray[np.bool_],
        level: NDArray[np.float64] | float,
    ) -> NDArray[np.float64]:
        """Whole grades; 15 points are a deviation, and the best areas have more room."""
        x = self.shift * (active - 0.5) + rng.normal(size=len(active)) + level
        points = min(15.0, 45 / (self.shift / 2 + 3)) if self.area < 1 else 6.0
        return np.clip(np.round(50 + points * x), 0, 100)


def _activations(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.gamma(1.5, 1.0, n) + 0.05
