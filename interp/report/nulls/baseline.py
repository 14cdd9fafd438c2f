"""A run's scores -> which labels predict better than the linear explanation on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from interp.records.family import is_linear
from interp.records.score_line import ScoreLine, digest_of
from interp.records.types import Score
from interp.run.results import Results


class Baseline(NamedTuple):
    """A label against the linear explanation of its latent, both scored by one judge."""

    rho: float
    """As `linear_rho` on the images that both were judged on."""
    linear_rho: float
    linear_label: str
    same: bool
    """Whether both say the same."""

    @property
    def gain(self) -> float:
        """What the label has more than the linear explanation."""
        return self.rho - self.linear_rho

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
    the same judge scored a linear one on the same images.

    Of two adaptive scores those images count that both were judged on: what was judged when the
    first of the two ended.
    """
    compared = {latent: _compare(results, *pair) for latent, pair in _pairs(results).items()}
    return {latent: one for latent, one in compared.items() if one and not math.isnan(one.gain)}


def find_apart(results: Results) -> list[int]:
    """Latents whose label and linear explanation were scored by one judge, but not on the same
    images: these cannot be compared."""
    pairs = _pairs(results)
    return [latent for latent, pair in pairs.items() if _compare(results, *pair) is None]


def _pairs(results: Results) -> dict[int, tuple[ScoreLine, list[ScoreLine]]]:
    """By latent the score of its label, and those of its linear explanations by the same judge."""
    linear: dict[tuple[object, ...], list[ScoreLine]] = {}
    for line in results.score_lines:
        score = line.score
        if is_linear(score.explainer) and not score.control and score.failure is None:
            linear.setdefault(_judge_of(score), []).append(line)
    lines = map(results.score_line, results.newest_explanations())
    own = [line for line in lines if line and not is_linear(line.score.explainer)]
    scored = [line for line in own if line.score.failure is None]
    return {
        line.score.latent: (line, linear[_judge_of(line.score)])
        for line in scored
        if _judge_of(line.score) in linear
    }


def _judge_of(score: Score) -> tuple[object, ...]:
    return score.latent, score.model, score.prompt, score.server


def _compare(results: Results, own: ScoreLine, others: Sequence[ScoreLine]) -> Baseline | None:
    """With the newest of the others that was tested on the same images, or else on some of them."""
    same_images = [line for line in others if line.images == own.images]
    for other in (*same_images[-1:], *others[::-1]):
        if (rhos := _on_common_images(results, own, other)) is not None:
            words = (own.score.label, other.score.label)
            same = words[0].casefold() == words[1].casefold()
            return Baseline(*rhos, words[1], same)
    return None


def _on_common_images(
    results: Results, own: ScoreLine, other: ScoreLine
) -> tuple[float, float] | None:
    """The rho of either on the images that both were judged on; None where no such figure was
    kept."""
    if own.images == other.images:
        return own.score.rho, other.score.rho
    first, last = sorted((own, other), key=lambda line: line.score.looks)
    n, look = first.score.n_positive + first.score.n_negative, first.score.looks
    if not 0 < look < last.score.looks or len(last.score.rho_by_look) < look:
        return None
    judged_by_then = results.with_verdicts(last).verdicts[:n]
    if digest_of(verdict.image_id for verdict in judged_by_then) != first.images:
        return None
    rhos = first.score.rho, last.score.rho_by_look[look - 1]
    return rhos if first is own else rhos[::-1]
