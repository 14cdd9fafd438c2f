"""What one question of the explainer shows: lettered grids of images, and the words to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from interp.grid import FIRST, SECOND, Tile, compose, is_low_resolution
from interp.pictures import Images, read_images
from interp.prompts import render
from interp.questions import Picture
from interp.records import Example
from interp.replies import ExplainAnswer, explain_schema, parse_explain
from interp.showing import Medium, ShowConfig, Shown, medium_of

COLUMNS = 4
_BACKGROUND: dict[Medium, int | None] = {"drawings": 255, "photos": 128, "mixed": None}


@dataclass(frozen=True)
class Page:
    """What one question shows."""

    codes: dict[str, str]
    """Letter -> image_id of the positives."""
    neg_codes: dict[str, str]
    strong: frozenset[str]
    medium: Medium
    grid: Picture | None
    twin: Picture | None
    neg_grid: Picture | None
    low_resolution: bool
    """Whether most of the positives are too small to be judged."""

    @property
    def letters(self) -> list[str]:
        return list(self.codes)

    @property
    def neg_letters(self) -> list[str]:
        return list(self.neg_codes)

    def parts(self) -> tuple[str | Picture, ...]:
        """The message: the task first, then the pictures, then one closing line."""
        strong = [letter for letter, image_id in self.codes.items() if image_id in self.strong]
        text = render(
            "explain",
            codes=self.letters,
            strong=strong,
            weak=[letter for letter in self.codes if letter not in strong] if strong else [],
            medium=self.medium,
            neg_codes=self.neg_letters,
            patch_map=self.twin is not None,
        )
        pictures = (
            ("First set:", self.grid),
            ("First set with outlines:", self.twin),
            ("Second set:", self.neg_grid),
        )
        drawn = [part for title, picture in pictures if picture for part in (title, picture)]
        return (text, *drawn, "Now answer with the JSON object.")

    def schema(self) -> dict[str, Any]:
        """Of the answer, with this page's letters."""
        return explain_schema(self.letters, self.neg_letters, region=self.twin is not None)

    def parse(self, text: str) -> ExplainAnswer:
        """Raises `ReplyError`."""
        region = self.twin is not None
        return parse_explain(text, self.letters, self.neg_letters, region=region)


def draw_page(
    shown: Shown,
    images: Images,
    config: ShowConfig,
    cell: int,
    patch_grid: tuple[int, int] | None = None,
) -> Page:
    """Read the images, give them letters and draw the grids; unreadable images are left out."""
    read = read_images(images, shown.positives)
    read_neg = read_images(images, shown.negatives)
    if len(read_neg) < config.min_negatives:
        read_neg = {}
    medium = medium_of(sorted({example.domain for example in read}))
    tiles, neg_tiles = _tiles(FIRST, read, patch_grid), _tiles(SECOND, read_neg, None)
    draw = partial(compose, columns=COLUMNS, cell=cell, background=_BACKGROUND[medium])
    n_low = sum(is_low_resolution(image) for image in read.values())
    return Page(
        codes=dict(zip(FIRST, (e.image_id for e in read), strict=False)),
        neg_codes=dict(zip(SECOND, (e.image_id for e in read_neg), strict=False)),
        strong=shown.strong,
        medium=medium,
        grid=draw(tiles) if tiles else None,
        twin=draw(tiles, twin=True) if any(tile.heat is not None for tile in tiles) else None,
        neg_grid=draw(neg_tiles) if neg_tiles else None,
        low_resolution=2 * n_low > len(read),
    )


def _tiles(
    letters: str, read: Mapping[Example, Image.Image], patch_grid: tuple[int, int] | None
) -> list[Tile]:
    return [
        Tile(letter, image, _heat_map(example.heat, patch_grid))
        for letter, (example, image) in zip(letters, read.items(), strict=False)
    ]


def _heat_map(heat: bytes | None, grid: tuple[int, int] | None) -> NDArray[np.uint8] | None:
    """(rows, columns) uint8, from the patches in row-major order."""
    if heat is None:
        return None
    side = math.isqrt(len(heat))
    return np.frombuffer(heat, dtype=np.uint8).reshape(grid or (side, side))
