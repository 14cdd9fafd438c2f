"""A run's controls and nulls -> what a label is held against, on a card and in the overview."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from interp.records.nulls import Null
from interp.records.types import Score
from interp.report.figures import number
from interp.report.nulls.controls import PIPELINE, control_scores
from interp.run.run import Run

SHUFFLED = "shuffled"
N_BINS = 40
"""Bins of the overview's distributions, over [0, 1]."""
Json = Any
By = tuple[str, str]
"""Model and prompt of the judge: only scores of the same one are compared."""


class RunNulls:
    """What labels that say nothing reach in this run, by the judge that scored it last."""

    def __init__(self, run: Run) -> None:
        lines = [line.score for line in run.results.score_lines]
        own = [score for score in lines if not score.control]
        self.by: By | None = (own[-1].model, own[-1].prompt) if own else None
        mine = [score for score in lines if self._is_comparable(score)]
        self.shuffled: Mapping[int, Score] = {s.latent: s for s in mine if s.control == SHUFFLED}
        """By latent: the label of another latent, tested on its images."""
        best = (score.nulls.best for score in mine if score.nulls and not score.control)
        areas = {name: control_scores(run.path, name) for name in PIPELINE}
        self._areas = {
            **{name: [s.auroc for s in of if self._is_comparable(s)] for name, of in areas.items()},
            SHUFFLED: [score.auroc for score in self.shuffled.values()],
            "best other label": [null.auroc for null in best if null],
        }

    def bands(self) -> list[dict[str, Json]]:
        """Of each control: its mean AUROC, and where 95% of its latents lie."""
        found = []
        for name, areas in self._areas.items():
            if areas:
                low, high = np.quantile(areas, (0.025, 0.975)).tolist()
                figures = {"mean": float(np.mean(areas)), "low": low, "high": high}
                figures = {key: number(value) for key, value in figures.items()}
                found.append({"name": name, "n": len(areas), **figures, "bins": _counts(areas)})
        return found

    def of(self, score: Score | None) -> list[list[Json]]:
        """Rows of a card: what it is, the label's words, AUROC, low, high; best first. `shuffled`
        is another latent's label, tested on these images in a control of its own."""
        if score is None or score.failure is not None:
            return []
        nulls: Iterable[Null] = score.nulls.nulls if score.nulls else ()
        ordered = sorted(nulls, key=lambda null: -null.auroc)
        rows: list[list[Json]] = [[n.kind, n.label, number(n.auroc), None, None] for n in ordered]
        other = self.shuffled.get(score.latent)
        if other is not None and self._is_comparable(score):
            bounds = [number(value) for value in (other.auroc_low, other.auroc_high)]
            rows.append(["control", other.label, number(other.auroc), *bounds])
        return rows

    def _is_comparable(self, score: Score) -> bool:
        return score.failure is None and (score.model, score.prompt) == self.by


def _counts(areas: Iterable[float]) -> list[int]:
    counts, _ = np.histogram(list(areas), N_BINS, (0.0, 1.0))
    return [int(count) for count in counts]
