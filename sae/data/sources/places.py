"""Archives, or a list of images, behind NAME= -> the candidates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sae.core.errors import UserError
from sae.data.sources import archives, listed

_SPAN = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SPAN = 1_000_000


class Found(NamedTuple):
    """A candidate of a domain, by paths relative to the domain's root."""

    path: Path
    """Where it is read."""
    place: Path
    """The same without the archive that it lies in: folders in it are classes."""
    label: str | None
    """Its class, where an archive or a list tells; None where folders do."""


def root_of(place: Path) -> Path:
    """The folder below which a domain's images lie: its own, or that of its archives or list."""
    return place.parent if place.is_file() or _SPAN.search(place.name) else place


def is_folder(place: Path) -> bool:
    """Whether a domain is a folder, whose files are looked for."""
    return root_of(place) == place


def is_list(place: Path) -> bool:
    """Whether it is a list of images, of which each domain has some rows."""
    return place.suffix.lower() in listed.SUFFIXES and not archives.is_archive(place)


def find_in_files(place: Path, domain: str) -> list[Found]:
    """The candidates of a domain that is an archive, several (`{000000..000012}.tar`), or a list.

    Raises `UserError` when one is missing, or is none of these.
    """
    files = _expand(place)
    missing = [file for file in files if not file.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]} does not exist{more}")
    if all(map(archives.is_archive, files)):
        return find_in_archives(place.parent, [Path(file.name) for file in files])
    if is_list(place):
        rows = listed.list_members(place, domain)
        return [Found(Path(row.name), Path(row.name), row.label) for row in rows]
    raise UserError(
        f"{place} is no folder of images, tar archive, parquet table of images, or list of images "
        "(a CSV or parquet file with a column path)"
    )


def find_in_archives(root: Path, files: Iterable[Path]) -> list[Found]:
    """The images in archives below a root, in order."""
    found: list[Found] = []
    for file in files:
        for name, label in archives.list_members(root / file):
            found.append(Found(file / name, file.parent / name, label))
    return found


def _expand(place: Path) -> list[Path]:
    """`{000000..000012}` stands for each of these numbers, with as many digits."""
    span = _SPAN.search(place.name)
    if span is None:
        return [place]
    first, last = span.groups()
    numbers = range(int(first), int(last) + 1)
    if not 0 < len(numbers) <= _MOST_SPAN or len(first) > 12:
        raise UserError(f"{place}: {span.group()} names no file")
    head, tail = place.name[: span.start()], place.name[span.end() :]
    return [place.with_name(f"{head}{n:0{len(first)}d}{tail}") for n in numbers]
