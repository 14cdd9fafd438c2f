"""A folder that a command is to write -> refused where it holds something else; what is left."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from sae.core.disk import errors_of
from sae.core.errors import UserError

MOST_BYTES = 255
"""Of a name, on nearly every file system."""
_OF_OTHERS = ("lost+found", ".DS_Store", ".gitkeep", ".gitignore")
"""What lies in a folder that people call empty."""
_LEFT = (".part", ".lock")
"""Ends of the names that a killed command leaves behind, ours alone."""


def require_name(path: Path | str, flag: str = "--out") -> None:
    """Raise `UserError` where a folder or file to be written cannot be called so."""
    text = str(path)
    bad = next((sign for sign in text if unicodedata.category(sign) in ("Cc", "Zl", "Zp")), "")
    if not text.strip():
        raise UserError(f"{flag} is empty; give a name")
    if bad:
        raise UserError(f"{flag} {text!r} has the control character {bad!r}; give another name")
    for name in Path(text).parts:
        try:
            n_bytes = len(name.encode())
        except UnicodeEncodeError:
            raise UserError(f"{flag} {text!r} is not valid UTF-8; give another name") from None
        if n_bytes > MOST_BYTES:
            raise UserError(
                f"{flag} {name[:20]}...: a name has at most {MOST_BYTES} bytes, not {n_bytes}"
            )


def require_folder(folder: Path, flag: str = "--out") -> None:
    """Raise `UserError` where no such folder can be written."""
    require_name(folder, flag)
    with errors_of(folder):
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                raise UserError(f"{flag} {folder}: {place} is a link to nothing; name another")
            if place.exists() and not place.is_dir():
                raise UserError(f"{flag} {folder}: {place} is a file; name a folder")
        place = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{flag} {folder}: {place} cannot be written; change its rights")


def is_new(folder: Path, known: Collection[str] = ()) -> bool:
    """Whether it is absent, or empty but for `known` names and what a killed command leaves."""
    if not folder.is_dir():
        return not folder.exists()
    with errors_of(folder):
        names = {path.name for path in folder.iterdir()} - {*known, *_OF_OTHERS}
    return all(name.endswith(_LEFT) for name in names)


def require_own(folder: Path, what: str, is_own: bool, flag: str = "--out") -> None:
    """Raise `UserError` unless `folder` is new, or, as `is_own` says, `what` is to be there."""
    require_folder(folder, flag)
    if not is_own and not is_new(folder):
        raise UserError(
            f"{flag} {folder} holds something else, no {what}; nothing of it is overwritten: "
            "name a folder that is new or empty"
        )
