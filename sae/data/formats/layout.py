"""Embeddings on disk in one form: which vectors of which files are the tokens of which images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Choice(NamedTuple):
    """What is wanted of foreign embeddings; "" is each format's default."""

    layer: str = ""
    """A block's number as the foreign files count; default: the last that they list."""
    tokens: str = ""
    """cls, patch or all; default: patch where there are patches."""
    clip: str = ""
    """The model, for files that do not name it."""


class Labels(NamedTuple):
    """What the foreign files say of each image's class."""

    values: list[str]
    """One an image; [] when they say nothing."""
    kind: Literal["name", "number", "caption", "patches"]
    """`number`: place among the sorted classes; `patches`: the commonest class of the patches."""


@dataclass(frozen=True)
class Layout:
    """How embeddings lie on disk. Nothing of them is read until it is looked at."""

    form: str
    """For people: "saev shards 2.1"."""
    files: tuple[Path, ...]
    rows: tuple[int, ...]
    """Images in each file."""
    stride: int
    """Vectors of a file from one image to the next: its layers times its tokens."""
    first: int
    """Vectors from the start of an image to its first wanted token."""
    d: int
    tokens_per_image: int
    grid: list[int]
    dtype: str
    """float16 or float32: what they are read as."""
    clip: str
    layer: str
    tokens: str
    fingerprint: str
    """64 hex digits, of what tells these embeddings from others."""
    vectors: Callable[[int], NDArray[Any]]
    """Of a file: all its vectors (n, d), mapped where that is possible."""
    labels: Callable[[], Labels]
    """Of all images, in the order of the files."""
    paths: Callable[[], list[str]] | None = None
    """Of all images, in the order of the files, as they were called when they were embedded; None
    where nothing tells: then their folder is read in torchvision's order."""
    may_stay_open: bool = False
    """An open file costs neither memory nor a file handle."""

    @property
    def n_images(self) -> int:
        return sum(self.rows)


def grid_of(n_patches: int) -> list[int]:
    """[h, w] of a square of patches; [] where they are none, and their places are not known."""
    side = int(np.sqrt(n_patches))
    return [side, side] if n_patches and side * side == n_patches else []
