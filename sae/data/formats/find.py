"""A path such as `FOLDER@10,cls` -> the `Layout` of the foreign embeddings that lie there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, cast

from sae.core.errors import UserError
from sae.data.formats import chunks, clip_retrieval, dense, saev
from sae.data.formats.layout import Choice, Layout
from sae.data.tokens import tokens_named
from sae.untrusted.damage import errors_in_one_line

_LAYER = re.compile(r"-?\d{1,6}|projected")


class Format(Protocol):
    """How one lab lays embeddings on disk."""

    NAME: str

    def find(self, path: Path) -> Path | None: ...
    def read(self, path: Path, choice: Choice) -> Layout: ...


FORMATS = cast("tuple[Format, ...]", (saev, chunks, clip_retrieval, dense))
"""In the order in which they are asked."""


def find_layout(place: Path, choice: Choice) -> Layout | None:
    """What lies at a place, or None when it is of no known format.

    Raises `UserError` when it is damaged, or lacks the layer or tokens that are asked for.
    """
    with errors_in_one_line(f"{place} is damaged", "; fetch it again"):
        for form in FORMATS:
            if (found := form.find(place)) is not None:
                return form.read(found, choice)
    return None


def split_choice(path: Path) -> tuple[Path, Choice]:
    """Cut `@10,cls` off a path that does not exist as it stands."""
    name, at, words = path.name.rpartition("@")
    if not at or path.exists():
        return path, Choice()
    choice = Choice()
    for word in words.split(","):
        if _LAYER.fullmatch(word):
            choice = choice._replace(layer=word)
            continue
        try:
            choice = choice._replace(tokens=tokens_named(word))
        except UserError:
            raise UserError(f"{path}: {word!r} is neither a layer nor cls, patch or all") from None
    return path.with_name(name), choice
