"""A list of images (CSV, or parquet without images in it) -> their paths and classes.

Columns: `path`, relative to the list's folder or absolute in it; `label`, the class, and `domain`,
of which those rows count that have the name of the domain, where there are such columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae.core.errors import UserError
from sae.data.sources.member import Member

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "label", "domain")


def list_members(file: Path, domain: str) -> list[Member]:
    """The images of a domain, by path relative to the list's folder, in order; each once.

    Raises `UserError` for a list that cannot be read, has no column `path`, names an image outside
    of its folder, or none of this domain.
    """
    members: dict[str, Member] = {}
    others: set[str] = set()
    for number, row in enumerate(_rows(file), 1):
        if row.get("domain", domain) != domain:
            others.add(row["domain"])
            continue
        name = _inside(file, number, row["path"])
        members.setdefault(name, Member(name, row.get("label")))
    if not members:
        known = f"; its domains are {', '.join(sorted(others)[:5])}" if others else ""
        raise UserError(f"{file} lists no image of the domain {domain!r}{known}")
    return sorted(members.values())


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """What each row has of `COLUMNS`, as text."""
    is_csv = file.suffix.lower() == ".csv"
    try:
        yield from _read_csv(file) if is_csv else _read_parquet(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read as a list of images: {reason}") from None


def _read_csv(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        lines = csv.DictReader(text, strict=True)
        there = _require_path(file, lines.fieldnames or [])
        for row in lines:
            yield {name: row[name] or "" for name in there}


def _read_parquet(file: Path) -> Iterator[dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            there = _require_path(file, table.schema_arrow.names)
            for batch in table.iter_batches(columns=there, use_threads=False):
                for row in batch.to_pylist():
                    yield {name: _text(row[name]) for name in there}
    except pa.ArrowException as error:
        raise OSError(str(error)) from None


def _require_path(file: Path, columns: Any) -> list[str]:
    if "path" not in columns:
        raise UserError(
            f"{file} has no column path (and none of images): it has "
            f"{', '.join(map(str, columns))[:200]}"
        )
    return [name for name in COLUMNS if name in columns]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _inside(file: Path, number: int, path: str) -> str:
    """The path from the list's folder on."""
    place, around = Path(path), file.parent
    if place.is_absolute():
        for folder in (around.absolute(), around.resolve()):
            if place.is_relative_to(folder):
                place = place.relative_to(folder)
                break
    if not path or "\0" in path or place.is_absolute() or ".." in place.parts:
        raise UserError(
            f"{file}, row {number}: {path[:200]!r} does not lie in the list's folder; put the list "
            "above its images"
        )
    return place.as_posix()
