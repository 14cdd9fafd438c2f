"""Tiles -> the part of a message that shows them: one lettered grid, or a picture for each letter.

Models read separate images better than stitched ones (GPT-4o, MMNeedle 2024), but some are billed
by the image, whatever its size; `interp.llm.cost.tokens.cheaper_layout` says which way costs less.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Literal

from PIL import Image

from interp.llm.types import LatePicture, Picture
from interp.pictures.cache import CACHE_BYTES, Lru, memory_of
from interp.pictures.grid import Tile, compose, grid_size, letterbox, single

Layout = Literal["grid", "separate"]


class Painter:
    """Draws the tiles of one question after another, in any thread.

    A single picture is encoded once for all the questions that show the same image: a letter is
    written above it in a grid, and beside it in the text of the message. For a grid it is brought
    to a cell's size once.
    """

    def __init__(
        self, layout: Layout, columns: int, cell: int, most_bytes: int = CACHE_BYTES
    ) -> None:
        """`columns`: of a grid; `cell`: side of a cell or of a single picture, px."""
        self.layout: Layout = layout
        self._columns = columns
        self._cell = cell
        self._encoded: Lru[Picture] = Lru(most_bytes, _memory)
        self._fitted: Lru[Image.Image] = Lru(most_bytes // 4, memory_of)

    def parts(
        self,
        tiles: Sequence[Tile],
        background: int | None = None,
        title: str = "",
        *,
        only_outlined: bool = False,
    ) -> tuple[str | Picture, ...]:
        """What shows the tiles under a title ("First set"), with a twin where they have heat maps.

        A picture is drawn when its bytes are first asked for; `draw` does it at once.
        `background`: see `grid.compose`; `only_outlined`: the twin alone.
        """
        if not tiles:
            return ()
        if only_outlined:
            return tuple(self._outlined(tiles, background))
        shown = self._grids if self.layout == "grid" else self._singles
        return tuple(shown(tiles, background, title))

    def _grids(
        self, tiles: Sequence[Tile], background: int | None, title: str
    ) -> Iterator[str | Picture]:
        if title:
            yield f"{title}:"
        yield self._grid(tiles, background)
        if any(tile.heat is not None for tile in tiles):
            yield f"{title or 'The same'} with outlines:"
            yield self._grid(tiles, background, twin=True)

    def _singles(
        self, tiles: Sequence[Tile], background: int | None, title: str
    ) -> Iterator[str | Picture]:
        head = f"{title}.\n" if title else ""
        for tile in tiles:
            yield f"{head}Picture {tile.letter}:"
            yield self._single(tile._replace(heat=None), background)
            if tile.heat is not None:
                yield f"Picture {tile.letter}, outlined:"
                yield self._single(tile, background)
            head = ""

    def _outlined(self, tiles: Sequence[Tile], background: int | None) -> Iterator[str | Picture]:
        if self.layout == "grid":
            yield self._grid(tiles, background, twin=True)
            return
        for tile in tiles:
            yield f"Picture {tile.letter}:"
            yield self._single(tile, background)

    def _grid(
        self, tiles: Sequence[Tile], background: int | None, *, twin: bool = False
    ) -> Picture:
        columns, cell = self._columns, self._cell
        drawn = partial(compose, tiles, columns, cell, background, twin=twin, fit=self._fit)
        return LatePicture(grid_size(len(tiles), columns, cell), drawn)

    def _single(self, tile: Tile, background: int | None) -> Picture:
        drawn = partial(self._draw_single, tile, background)
        return LatePicture((self._cell, self._cell), drawn)

    def _draw_single(self, tile: Tile, background: int | None) -> Picture:
        if not tile.image_id:
            return single(tile, self._cell, background)
        key = (tile.image_id, _outline_of(tile), background)
        return self._encoded.get(key, lambda: single(tile, self._cell, background))

    def _fit(self, tile: Tile, side: int, background: int | None, twin: bool) -> Image.Image:
        """The square of a tile in a grid; shared, nobody may draw on one."""
        if not tile.image_id:
            return letterbox(tile, side, background, twin)
        key = (tile.image_id, _outline_of(tile) if twin else None, side, background)
        return self._fitted.get(key, lambda: letterbox(tile, side, background, twin))


def draw(parts: Iterable[str | Picture]) -> None:
    """Work out here, in a drawing thread, what the event loop would stop for when it sends."""
    for part in parts:
        if isinstance(part, Picture):
            _ = part.sha256, part.base64, part.size


def _outline_of(tile: Tile) -> Hashable:
    """Equal where what is drawn of the heat map is equal."""
    return tile.heat and (tile.heat.values.shape, tile.heat.values.tobytes(), tile.heat.view)


def _memory(picture: Picture) -> int:
    """Bytes of the file and of its base64 text."""
    return len(picture.data) + len(picture.base64)
