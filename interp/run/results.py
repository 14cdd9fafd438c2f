"""What was said and measured of the latents so far: the last word of each file counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from interp.records.codec import from_json
from interp.records.types import Explanation, Score
from sae.core.files import read_jsonl


@dataclass(frozen=True)
class Findings:
    """Explanations and scores by latent; a latent that was not reached yet has neither.

    Rows become records when they are asked for: a sheet needs one, not all 24,576.
    """

    said: dict[int, dict[str, Any]]
    measured: dict[int, dict[str, Any]]

    def explanation(self, latent: int) -> Explanation | None:
        """What the explainer says of the latent, a failure too."""
        row = self.said.get(latent)
        return from_json(Explanation, row) if row else None

    def label(self, latent: int) -> str | None:
        """The latent's label; None when there is none (yet)."""
        label: str | None = self.said.get(latent, {}).get("label")
        return label

    def any_score(self, latent: int) -> Score | None:
        """The last score, be it of an earlier label."""
        row = self.measured.get(latent)
        return from_json(Score, row) if row else None

    def score(self, latent: int) -> Score | None:
        """The score of the label that the latent has now; one of an earlier label is no score."""
        row = self.measured.get(latent)
        return from_json(Score, row) if row and row["label"] == self.label(latent) else None


def read_findings(run_dir: Path) -> Findings:
    """Read explanations.jsonl and scores.jsonl; a missing file is empty, controls are left out."""
    said = read_jsonl(run_dir / "explanations.jsonl")
    measured = [r for r in read_jsonl(run_dir / "scores.jsonl") if not r.get("control")]
    return Findings({r["latent"]: r for r in said}, {r["latent"]: r for r in measured})


EXPLANATIONS = "explanations.jsonl"


SCORES = "scores.jsonl"


Row = TypeVar("Row", Explanation, Score)


def latest_explanations(path: Path) -> dict[int, Explanation]:
    """The last explanation of every latent; none when the file is missing."""
    return _last(Explanation, read_jsonl(path))


def latest_scores(path: Path) -> dict[int, Score]:
    """The last score of every latent's own label, without its verdicts; controls do not count."""
    rows = [{**row, "verdicts": []} for row in read_jsonl(path) if not row.get("control")]
    return _last(Score, rows)


def _last(cls: type[Row], rows: Iterable[dict[str, Any]]) -> dict[int, Row]:
    last = {row["latent"]: row for row in rows}
    return {latent: from_json(cls, row) for latent, row in last.items()}
