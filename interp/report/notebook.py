"""A finished run in Python: tables as DataFrames, cards that show themselves in a notebook."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from interp.evidence.reader import EvidenceReader
from interp.records.effect import CausalEffect
from interp.records.nulls import Null
from interp.records.support import Support
from interp.records.transfer import CELLS, Cell, Transfer
from interp.records.types import Score
from interp.report.labels import read_labels
from interp.report.nulls.controls import supports_of
from interp.report.sheets import sheet_png
from interp.report.single.facts import FactReader
from interp.report.single.write import notebook_card
from interp.run.run import Run, RunInfo
from interp.run.transfer_file import read_transfer
from interp.run.verdicts import Review, fresh_reviews


class Card(NamedTuple):
    """One latent as a notebook shows it: what is known of it in words, and its sheet."""

    latent: int
    png: bytes
    html: str

    def _repr_png_(self) -> bytes:
        return self.png

    def _repr_html_(self) -> str:
        return self.html


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

    @cached_property
    def nulls(self) -> pd.DataFrame:
        """One line per latent and label that says nothing of it, on the images of its own test."""
        scores = [line.score for line in self.files.results.score_lines]
        rows = [
            {"latent": one.latent, "scorer": one.model, **dataclasses.asdict(null)}
            for one in scores
            if one.nulls and not one.control
            for null in one.nulls.nulls
        ]
        return pd.DataFrame(rows, columns=["latent", "scorer", *_fields(Null)])

    @cached_property
    def supports(self) -> pd.DataFrame:
        """One line per latent whose label was held against nulls: state, gain and interval, p."""
        found = supports_of(self.files.results)
        rows = [{"latent": latent, **dataclasses.asdict(one)} for latent, one in found.items()]
        return pd.DataFrame(rows, columns=["latent", *_fields(Support)])

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """One line per latent whose label a person has judged: verdict, better label, note."""
        rows = fresh_reviews(self.files.path, self.files.results).values()
        return pd.DataFrame(map(dataclasses.asdict, rows), columns=_fields(Review))

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One line per latent that was edited in its network, of the label that it has now."""
        named = range(self.info.n_latents)
        found = [one for latent in named if (one := self.files.results.effect(latent))]
        rows = [{**dataclasses.asdict(one), "shown_by": one.shown_by} for one in found]
        return pd.DataFrame(rows, columns=[*_fields(CausalEffect), "shown_by"])

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """One line per latent of the 2x2 across domains; `auroc_ab`: label of a, images of b."""
        return pd.DataFrame(map(_flat, read_transfer(self.files.path).values()), columns=_CROSSED)

    @property
    def evidence(self) -> EvidenceReader:
        """Everything that was collected, latent by latent."""
        return self.files.evidence

    @property
    def examples(self) -> pd.DataFrame:
        """One line per latent and kept image."""
        return self.evidence.examples

    def card(self, latent: int) -> Card:
        """One latent, as a notebook shows it. Raises `UserError` if there is none."""
        png = sheet_png(self.files, latent)
        return Card(latent, png, notebook_card(self._facts, latent, png))

    @cached_property
    def _facts(self) -> FactReader:
        return FactReader(self.files)


def load(path: str | Path) -> LoadedRun:
    """Open a run by folder, or by name under results/. Raises `UserError` when there is none."""
    return LoadedRun(Run.open(str(path)))


def _fields(record: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]


_CELLS = [f"{name}_{cell}" for cell in CELLS for name in Cell._fields]
_CROSSED = [name for name in _fields(Transfer) if name != "cells"] + _CELLS


def _flat(crossed: Transfer) -> dict[str, Any]:
    values = [value for cell in crossed.cells for value in cell]
    named = {name: getattr(crossed, name) for name in _fields(Transfer) if name != "cells"}
    return named | dict(zip(_CELLS, values, strict=True))
