"""A finished run in Python: tables as DataFrames, cards that show themselves in a notebook."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from interp.evidence.reader import EvidenceReader
from interp.records.types import Score
from interp.report.labels import read_labels
from interp.report.sheets import sheet_png
from interp.run.run import Run, RunInfo


class Card(NamedTuple):
    """One latent as a picture."""

    latent: int
    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


class LoadedRun:
    """A run with its tables; each is read when first asked for."""

    def __init__(self, files: Run) -> None:
        self.files = files
        """Where everything lies."""

    @property
    def info(self) -> RunInfo:
        """run.json."""
        return self.files.info

    @cached_property
    def labels(self) -> pd.DataFrame:
        """labels.csv: one line per latent."""
        return read_labels(self.files.labels)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One line per latent, scorer and control; `verdicts` holds a record per held-out image."""
        scores = self.files.results.scores_with_verdicts()
        fields = [field.name for field in dataclasses.fields(Score)]
        rows = [{name: getattr(score, name) for name in fields} for score in scores]
        return pd.DataFrame(rows, columns=fields)

    @property
    def evidence(self) -> EvidenceReader:
        """Everything that was collected, latent by latent."""
        return self.files.evidence

    @property
    def examples(self) -> pd.DataFrame:
        """One line per latent and kept image."""
        return self.evidence.examples

    def card(self, latent: int) -> Card:
        """The sheet of one latent, as a notebook shows it. Raises `UserError` if there is none."""
        return Card(latent, sheet_png(self.files, latent))


def load(path: str | Path) -> LoadedRun:
    """Open a run by folder, or by name under results/. Raises `UserError` when there is none."""
    return LoadedRun(Run.open(str(path)))
