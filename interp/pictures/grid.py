"""Images -> pictures for a model: a lettered grid, or one square picture of each image.

Nothing is printed but a letter above each image of a grid. A cell is 224 px, a multiple of the
patch sizes of all vision models (28, 32, 14, 16), without gutters, so that no cell straddles a
patch border. Letters are no digits, because digits printed in an image pull a model's numeric
answers. A grid's size is (columns x cell, rows x cell).
"""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from interp.llm.types import Picture
from interp.pictures.heatmap import outline
from sae.data.view import Heat

FIRST = "ABCDEFGHJKLM"
"""Letters of the first set: 12, without I (a stroke) and O (a circle)."""
SECOND = "NPRSTUVWXYZ"
"""Letters of the second set: 11, none of them in the first."""
CELLS = (224, 336, 448)
LARGEST = 512
"""Pixels. No picture is drawn as large, so an image is held with a longer side of at most this.
ImageNet's 500 px stay what they are: to scale them down twice would cost more than to decode."""
LOW_RESOLUTION = 64
"""Pixels. An image whose longer side is shorter than this shows too little to judge."""

WHITE, MID_GREY = 255, 128
_STRIP, _FRAME, _INK = 232, 200, 0
_MOST_ENLARGED = 4


class Tile(NamedTuple):
    """One cell: a letter, an image, and where the latent responded (patch stores only)."""

    letter: str
    image: Image.Image
    """RGB."""
    heat: Heat | None = None
    image_id: str = ""
    """Equal ids are equal pixels; "" when it is not known."""


Fit = Callable[[Tile, int, int | None, bool], Image.Image]
"""Makes the square of a tile (`letterbox`)."""


def compose(
    tiles: Sequence[Tile],
    columns: int,
    cell: int = 224,
    background: int | None = None,
    *,
    twin: bool = False,
    fit: Fit | None = None,
) -> Picture:
    """Draw the tiles row by row, `columns` a row; the same tiles give the same bytes.

    `background` is the grey around an image that is not square: 255 for drawings, 128 for photos,
    None chooses per image (white when its border is white). `twin` draws the region where the
    latent responded: a magenta outline, the rest faded. `fit`: `letterbox`, or what has kept its
    squares. PNG when all is grey, else JPEG.
    """
    if not tiles or columns < 1 or cell not in CELLS:
        raise ValueError(f"{len(tiles)} tiles in {columns} columns of {cell} px; cells: {CELLS}")
    strip = cell // 8
    drawn = [(fit or letterbox)(tile, cell - strip - 2, background, twin) for tile in tiles]
    page = Image.new(_mode_of(drawn), grid_size(len(tiles), columns, cell))
    page.paste(_STRIP if page.mode == "L" else (_STRIP,) * 3, (0, 0, *page.size))
    for slot, (tile, picture) in enumerate(zip(tiles, drawn, strict=True)):
        row, column = divmod(slot, columns)
        left, top = column * cell, row * cell
        page.paste(_frame(tile.letter, cell), (left, top))
        page.paste(picture, (left + strip // 2 + 1, top + strip + 1))
    return _encoded(page)


def grid_size(n_tiles: int, columns: int, cell: int) -> tuple[int, int]:
    """(width, height) of what `compose` draws, px."""
    return columns * cell, math.ceil(n_tiles / columns) * cell


def single(tile: Tile, cell: int = 224, background: int | None = None) -> Picture:
    """Draw one image by itself: square, without letter or frame, outlined where it has a heat map.

    `background`: as in `compose`.
    """
    if cell not in CELLS:
        raise ValueError(f"a picture of {cell} px; cells: {CELLS}")
    return _encoded(letterbox(tile, cell, background, twin=True))


def shrink(image: Image.Image) -> Image.Image:
    """RGB, its longer side at most `LARGEST`; drawing it gives the very bytes the image gives.

    Thin lines keep their contrast: from 512 to 3,000 px down to a cell in two steps as in one.
    """
    image = image.convert("RGB")
    scale = LARGEST / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def is_low_resolution(image: Image.Image) -> bool:
    """Whether the source shows too little to be judged, however large it is drawn."""
    return max(image.size) < LOW_RESOLUTION


@cache
def _frame(letter: str, cell: int) -> Image.Image:
    """A cell without its picture, grey: a letter strip of an eighth on top, below it a square."""
    strip = cell // 8
    side = cell - strip
    drawn = Image.new("L", (cell, cell), WHITE)
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((0, 0, cell - 1, strip - 1), fill=_STRIP)
    pen.rectangle((0, strip - 2, cell - 1, strip - 1), fill=_FRAME)
    _write_letter(pen, letter, strip)
    left = strip // 2
    pen.rectangle((left, strip, left + side - 1, cell - 1), outline=_FRAME)
    return drawn


def _write_letter(pen: ImageDraw.ImageDraw, letter: str, strip: int) -> None:
    font = _font(round(strip * 25 / 28))
    _, top, _, bottom = font.getbbox(letter)
    height = strip - 2  # the separator's two pixels are not part of the space
    pen.text((strip // 2, (height - (bottom - top)) / 2 - top), letter, fill=_INK, font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The basic layout does not depend on whether libraqm is installed: same bytes everywhere.
    return ImageFont.truetype(_font_file(), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _font_file() -> str:
    """DejaVu Sans Bold as shipped inside matplotlib, found without importing it."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    fonts = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return str(fonts / "DejaVuSans-Bold.ttf")


def letterbox(tile: Tile, side: int, background: int | None, twin: bool) -> Image.Image:
    """The square of a tile. In the mode "L" where all is grey, a third of the time of three."""
    image = shrink(tile.image)
    if _is_grey(image):
        image = image.convert("L")
    grey = _border_grey(image) if background is None else background
    fitted = _fitted(image, side)
    if twin and tile.heat is not None:
        fitted = outline(fitted.convert("RGB"), tile.heat)
    box = Image.new(fitted.mode, (side, side), grey if fitted.mode == "L" else (grey,) * 3)
    box.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return box


def _mode_of(images: Sequence[Image.Image]) -> Literal["L", "RGB"]:
    return "L" if all(image.mode == "L" for image in images) else "RGB"


def _is_grey(image: Image.Image) -> bool:
    """Whether the three channels are one; of a colour image most often a few pixels tell."""
    pixels = np.asarray(image)
    return all(
        np.array_equal(some[..., 0], some[..., 1]) and np.array_equal(some[..., 1], some[..., 2])
        for some in (pixels[::16, ::16], pixels)
    )


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Scale to a longer side of `side`: never cropped, never enlarged beyond four times.

    Small images are first enlarged by whole pixels, so that they stay readable and do not ring.
    """
    longer = max(image.size)
    if longer < 2 * LOW_RESOLUTION:
        least = 1 if longer < LOW_RESOLUTION else 2
        times = max(least, min(_MOST_ENLARGED, side // longer))
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
        if longer < LOW_RESOLUTION:
            return image
    scale = min(side / max(image.size), _MOST_ENLARGED * longer / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _border_grey(image: Image.Image) -> int:
    pixels = np.asarray(image.convert("L"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return WHITE if float(np.median(border)) >= 240 else MID_GREY


def _encoded(page: Image.Image) -> Picture:
    file = io.BytesIO()
    if page.mode == "L" or _is_grey(page):
        # The highest level takes 8 times as long for files 1 to 2% smaller.
        page.convert("L").save(file, "PNG", compress_level=4)
        return Picture(file.getvalue(), "image/png")
    # 4:4:4: halved colour resolution smears thin coloured strokes and the outline.
    page.save(file, "JPEG", quality=90, subsampling=0)
    return Picture(file.getvalue(), "image/jpeg")
