"""Latents, and what found them -> rows for people and for JSON: label, score, support."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interp.records.wording import interpretation
from interp.report.canvas import one_line
from interp.report.figures import fixed
from interp.report.nulls.controls import supports_of
from interp.run.run import Run
from interp.run.verdicts import fresh_reviews
from sae.data.view import Heat

NO_LABEL = "(no label)"


@dataclass(frozen=True)
class Answer:
    """One latent that was found."""

    latent: int
    label: str
    """As people read it; "" without one."""
    auroc: float
    auroc_low: float
    auroc_high: float
    """Of the label, with its 95% interval; NaN without a score."""
    supported: str
    """`supported`, `undecided`, `unsupported`; "" where no null was graded."""
    figures: Mapping[str, float]
    """Why it was found: by name, in the order in which they are shown."""
    heat: Heat | None = field(default=None, compare=False)
    """Where on the image that was asked about."""

    def json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None. `heat` is base64 of a byte a patch, row by row."""
        areas = {name: getattr(self, name) for name in ("auroc", "auroc_low", "auroc_high")}
        numbers = {**self.figures, **areas}
        plain = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        values = {"latent": self.latent, "label": self.label, "supported": self.supported, **plain}
        if self.heat is not None:
            packed = self.heat.values.astype(np.uint8).tobytes()
            values["heat"] = base64.b64encode(packed).decode("ascii")
        return values


def tell(
    run: Run,
    latents: Sequence[int],
    figures: Sequence[Mapping[str, float]],
    heats: Sequence[Heat | None] | None = None,
) -> list[Answer]:
    """What the run says of these latents, beside the `figures` that found each."""
    results = run.results
    supports, reviews = supports_of(results), fresh_reviews(run.path, results)
    answers = []
    for place, (latent, of) in enumerate(zip(latents, figures, strict=True)):
        score, support, review = results.score(latent), supports.get(latent), reviews.get(latent)
        label = (review.better if review else "") or interpretation(results.explanation(latent))
        areas = (score.auroc, score.auroc_low, score.auroc_high) if score else (math.nan,) * 3
        state = support.state if support else ""
        heat = heats[place] if heats is not None else None
        answers.append(Answer(latent, label, *areas, state, of, heat))
    return answers


def table(answers: Sequence[Answer]) -> list[tuple[str, ...]]:
    """Rows for people, the heads first."""
    names = list(answers[0].figures) if answers else []
    heads = ("latent  label", *names, "AUROC", "95%", "support")
    return [heads, *map(_cells, answers)]


def _cells(answer: Answer) -> tuple[str, ...]:
    label = one_line(answer.label or NO_LABEL, 48)
    scored = not math.isnan(answer.auroc)
    interval = f"{fixed(answer.auroc_low)} to {fixed(answer.auroc_high)}" if scored else "–"
    shown = [short(name, value) for name, value in answer.figures.items()]
    support = answer.supported or "–"
    return (f"{answer.latent:>6}  {label}", *shown, fixed(answer.auroc), interval, support)


def short(name: str, value: float) -> str:
    """A figure as it is shown: whole numbers for counts and percentiles."""
    if math.isnan(value):
        return "–"
    if name == "percentile":
        return f"{value:.0f}%"
    return f"{value:.0f}" if name == "tokens" else f"{value:.3g}" if name == "act" else fixed(value)
