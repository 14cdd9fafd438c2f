"""A run's scores -> which labels predict better than the linear explanation on the same images."""

from __future__ import annotations

import math
from typing import NamedTuple

from interp.records.family import is_linear
from interp.records.score_line import ScoreLine
from interp.run.results import Results


class Baseline(NamedTuple):
    """A label against the linear explanation of its latent, both scored by one judge."""

    rho: float
    linear_rho: float
    linear_label: str
    same: bool
    """Whether both say the same."""

    @property
    def is_beaten(self) -> bool:
        """Whether the label's rho is above the linear explanation's."""
        return self.rho > self.linear_rho

    def in_words(self) -> str:
        """For people."""
        how = "better than" if self.is_beaten else "no better than"
        return (
            f"The label predicts the activation over all held-out images {how} the linear "
            f"explanation, {self.linear_label}: correlation {self.rho:.2f} against "
            f"{self.linear_rho:.2f}."
        )


def against_linear(results: Results) -> dict[int, Baseline]:
    """By latent, of the label that it has now; only where that is no linear explanation itself and
    the same judge scored a linear one on the same images."""
    linear: dict[tuple[object, ...], ScoreLine] = {}
    for line in results.score_lines:
        if is_linear(line.score.explainer) and not line.score.control:
            linear[_test_of(line)] = line
    found = {}
    for latent in results.newest_explanations():
        own = results.score_line(latent)
        other = linear.get(_test_of(own)) if own else None
        if own is None or other is None or is_linear(own.score.explainer):
            continue
        rho, linear_rho = own.score.rho, other.score.rho
        if not math.isnan(rho + linear_rho):
            words = (own.score.label, other.score.label)
            same = words[0].casefold() == words[1].casefold()
            found[latent] = Baseline(rho, linear_rho, words[1], same)
    return found


def _test_of(line: ScoreLine) -> tuple[object, ...]:
    score = line.score
    return score.latent, score.model, score.prompt, score.server, line.images
