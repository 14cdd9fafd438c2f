"""truth.jsonl of a run <-> whether its labels are true, where it is known what its images show."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interp.records.codec import read_records, to_json
from sae.core.files import replacing

FILE = "truth.jsonl"


@dataclass(frozen=True)
class LabelTruth:
    """What is planted in the images of one latent, and whether its label says it."""

    latent: int
    label: str
    """That was compared; of another label nothing is known."""
    concept: str
    """What its strongest held-out images show most, beyond what all images do."""
    is_true: bool
    """Whether the label is true of three quarters of them."""


def write_truth(run_dir: Path, found: Iterable[LabelTruth]) -> Path:
    """A line a latent that has a label, in place of all that was there."""
    path = run_dir / FILE
    with replacing(path) as part:
        lines = (json.dumps(to_json(one), ensure_ascii=False) + "\n" for one in found)
        part.write_text("".join(lines), encoding="utf-8")
    return path


def read_truth(run_dir: Path) -> dict[int, LabelTruth]:
    """By latent; {} where the truth is not known. Raises `UserError` when damaged."""
    return {one.latent: one for one in read_records(run_dir / FILE, LabelTruth)}
