"""Labels of other latents, graded in the questions of a label -> what they reach on its images.

For a judge that is paid: foils cost some words of an answer, and no picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from interp.pictures.grid import Tile
from interp.records.nulls import BESIDE, FOILS, NullTest
from interp.records.types import Evidence, Explanation, LatentStats, Verdict
from interp.records.wording import cut_label, wording
from interp.score.judge import Judgement, Pictures
from interp.score.kinds.asking import GridQuestion
from interp.score.kinds.detect import VlmJudge
from interp.score.kinds.foils import MOST_FOILS
from interp.score.nulls.compare import compare
from interp.score.nulls.suite import GENERIC, distinct, domain_labels, says_the_same
from interp.score.sampling import turn_of
from sae.core.files import sha256_hex

LEAST_LATENTS = 20
"""Latents that have foils in a small run: their 60 foils let a p-value be below .05 when a third of
the labels are right."""
_LEAST_SHARE = 0.5
"""Share of the images that must have a grade by a foil for it to count."""
_LEAST_IMAGES = 5
"""Positives, and negatives, likewise."""


class Foil(NamedTuple):
    """A label that says nothing of the latent."""

    kind: str
    """As in `Null`."""
    label: str


@dataclass(frozen=True)
class Foils:
    """Which latents of a run have foils, and which."""

    labels: Mapping[int, str]
    """Of all latents of the run that have one."""
    share: float
    """Of the latents that are tested; of few at least `LEAST_LATENTS`. 0: none."""
    n_tested: int

    def has(self, latent: int) -> bool:
        """It follows from the latent's number: those that are asked again first (`n_again`)."""
        least = LEAST_LATENTS / self.n_tested if self.n_tested and self.share else 0.0
        return turn_of(latent) >= 1 - max(self.share, least)

    def draw(self, evidence: Evidence, tested: str) -> tuple[Foil, ...]:
        """Up to `MOST_FOILS`, none of which speaks of what the tested label, the latent's own or
        another foil says. Where labels of other latents are few, a domain and a generic label.

        The order in which labels are taken follows from their wording and the latent's number, so
        that a further label in the run changes few draws.
        """
        latent = evidence.stats.latent
        own = self.labels.get(latent, tested)
        others = distinct(cut_label(label)[0] for n, label in self.labels.items() if n != latent)
        others.sort(key=lambda label: sha256_hex(f"{latent} {wording(label)}".encode()))
        domains = domain_labels(e.domain for e in evidence.examples if e.side == "score")
        ready = [Foil("shuffled", label) for label in others]
        ready += [Foil("domain", label) for label in domains[:1]] + [Foil("generic", GENERIC[0])]
        drawn: list[Foil] = []
        for foil in ready:
            said = (tested, own, *(other.label for other in drawn))
            if len(drawn) < MOST_FOILS and not any(says_the_same(foil.label, one) for one in said):
                drawn.append(foil)
        return tuple(drawn)


@dataclass
class FoilJudge:
    """A `Judge` of one latent that also has its foils graded, and the `Nulls` of what it heard."""

    judge_of_label: VlmJudge
    foils: Sequence[Foil]
    _heard: dict[tuple[int, str], float] = field(default_factory=dict)
    """(number of the foil, image id) -> grade."""

    @property
    def name(self) -> str:
        return self.judge_of_label.name

    @property
    def prompt(self) -> str:
        """Of the question about the label alone: with foils it is the same, and goes on."""
        return self.judge_of_label.prompt

    @property
    def server(self) -> str:
        return self.judge_of_label.server

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        """See `Judge`; grades of foils are kept for `test`."""
        letters: dict[str, str] = {}

        def look() -> Sequence[Tile]:
            shown = pictures()
            letters.update({tile.letter: tile.image_id for tile in shown})
            return shown

        filed = _beside(about)
        judged = await self.judge_of_label.judge(label, description, look, filed, self._labels)
        for number, grades in enumerate(judged.foils):
            known = {code: grade for code, grade in grades.items() if grade is not None}
            self._heard |= {(number, letters[code]): grade for code, grade in known.items()}
        return judged

    def question(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> GridQuestion | None:
        """What `judge` asks first."""
        filed = _beside(about)
        return self.judge_of_label.question(label, description, pictures, filed, self._labels)

    def test(
        self, stats: LatentStats, explanation: Explanation, verdicts: Sequence[Verdict], z: float
    ) -> NullTest:
        """Each foil against the label on the images that have a grade by both; a foil without a
        grade on most of them is left out."""
        nulls = []
        for number, foil in enumerate(self.foils):
            both = [
                (verdict.score, self._heard[number, verdict.image_id], verdict.truth)
                for verdict in verdicts
                if verdict.score is not None and (number, verdict.image_id) in self._heard
            ]
            sides = Counter(truth for _, _, truth in both)
            enough = min(sides[True], sides[False]) >= _LEAST_IMAGES
            if enough and len(both) >= _LEAST_SHARE * len(verdicts):
                own, heard, truth = zip(*both, strict=True)
                nulls.append(compare(foil.kind, foil.label, own, heard, truth, z))
        return NullTest(FOILS, tuple(nulls), prompt=self.judge_of_label.prompt_with_foils)

    @property
    def _labels(self) -> list[str]:
        return [foil.label for foil in self.foils]


def _beside(about: str) -> str:
    """Questions with foils have an account of their own: they cost more."""
    return f"{about.rpartition(' ')[0]}{BESIDE} {about.rpartition(' ')[2]}" if about else about
