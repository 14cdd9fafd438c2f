"""transfer.csv of a run <-> the 2x2 of its latents."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

from interp.records.codec import from_json
from interp.records.transfer import CELLS, Cell, Transfer
from sae.core.csv_cells import read_cell, write_cell
from sae.core.errors import UserError, quote
from sae.core.files import replacing

FILE = "transfer.csv"
TEXTS = ("class", "why", "only", "domain_a", "domain_b", "label_a", "label_b")
FIGURES = tuple(f"{name}_{cell}" for cell in CELLS for name in Cell._fields)
COLUMNS = ("latent_id", *TEXTS, "share_a", *FIGURES)


def write_transfer(run_dir: Path, found: Iterable[Transfer]) -> Path:
    """A row a latent that was looked at; floats with 4 significant digits, "" where none is."""
    path = run_dir / FILE
    lines = [",".join(COLUMNS)]
    for one in found:
        texts = [one.kind, *(getattr(one, name) for name in TEXTS[1:])]
        numbers = [one.share_a, *(value for cell in one.cells for value in cell)]
        written = ["" if math.isnan(number) else f"{number:.4g}" for number in numbers]
        lines.append(",".join([str(one.latent), *map(write_cell, texts), *written]))
    with replacing(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8-sig", newline="")
    return path


def read_transfer(run_dir: Path) -> dict[int, Transfer]:
    """By latent; empty where `interp transfer` was not run. Raises `UserError` when damaged."""
    path = run_dir / FILE
    if not path.exists():
        return {}
    remedy = f"run `interp transfer --run {quote(run_dir)}` again"
    try:
        table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError("other columns")
        return {one.latent: one for one in (_read(row, path) for row in table)}
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({str(error)[:120]}); {remedy}") from None


def _read(row: dict[str, str], path: Path) -> Transfer:
    number = {name: float(row[name] or "nan") for name in ("share_a", *FIGURES)}
    cells = [[number[f"{name}_{cell}"] for name in Cell._fields] for cell in CELLS]
    values = {
        "latent": int(row["latent_id"]),
        "kind": row["class"],
        **{name: read_cell(row[name]) for name in TEXTS[1:]},
        "share_a": number["share_a"],
        "cells": [[None if math.isnan(value) else value for value in cell] for cell in cells],
    }
    share = number["share_a"]
    return from_json(
        Transfer, {**values, "share_a": None if math.isnan(share) else share}, str(path)
    )
