"""Folders' names -> the names of classes: a user's own file, and ImageNet's for WordNet ids."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sae.core.errors import UserError

IMAGENET = Path(__file__).with_name("imagenet.csv")
_WORDNET_ID = re.compile(r"n\d{8}")


def read_class_names(path: Path) -> dict[str, str]:
    """A CSV file of lines `folder,name` (a first line with these words counts for nothing).

    Raises `UserError` for a line that is none, and for a folder with two names.
    """
    names: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, cells in enumerate(csv.reader(file), 1):
                if not cells or cells[0].startswith("#") or cells == ["folder", "name"]:
                    continue
                folder, name = (cell.strip() for cell in cells) if len(cells) == 2 else ("", "")
                if not folder or not name or names.setdefault(folder, name) != name:
                    raise UserError(
                        f"{path}, line {number}: {','.join(cells)[:80]!r} is not folder,name with "
                        "one name a folder"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of classes: {error}") from None
    if not names:
        raise UserError(f"{path} has no line folder,name")
    return names


def is_wordnet_id(folder: str) -> bool:
    """Whether a folder is called like ImageNet's: n01440764."""
    return _WORDNET_ID.fullmatch(folder) is not None


def class_of(folder: str, names: Mapping[str, str] | None = None) -> str:
    """The class of a folder: its name among `names`, else ImageNet's for an id, else its own."""
    if names and folder in names:
        return names[folder]
    return _imagenet().get(folder, folder) if is_wordnet_id(folder) else folder


def class_name(label: str) -> str:
    """A folder's name as words: "ice_cream" -> "ice cream", "n01440764" -> "tench"."""
    return " ".join(re.sub(r"[_-]", " ", class_of(label)).split())


def class_names(labels: Iterable[str]) -> list[str]:
    """The different classes among labels, sorted; "" is none."""
    return sorted({class_name(label) for label in labels} - {""})


@functools.cache
def _imagenet() -> dict[str, str]:
    return read_class_names(IMAGENET)
