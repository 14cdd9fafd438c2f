"""A sheet to draw on: one set of axes whose unit is the inch, x to the right and y down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.records.types import Example
from interp.report.gallery.thumbs import ImageSource
from sae.data.view import Heat

WIDTH, MARGIN, DPI = 11.0, 0.55, 130
"""Inches, inches, dots per inch."""
INK, SOFT, LINE, BAR = "#22262b", "#646b73", "#dcd7ce", "#8aa2b9"
BACKGROUND, ACCENT, GOOD, BAD = "#fffefc", "#2f5d8a", "#23784f", "#b83a32"
SERIF, SANS = "DejaVu Serif", "DejaVu Sans"  # come with matplotlib: the same everywhere
HOT, HEAVIEST = (225, 40, 90), 0.72
"""Colour and opacity of heat where it is largest: the gallery's."""
_SOURCE_PIXELS = 320


@dataclass
class Canvas:
    """The axes to draw on, and how far down the sheet is filled (`y`)."""

    axes: Any
    source: ImageSource
    heat_of: Callable[[Example], Heat | None] | None = None
    """Where a latent answers on an image; None: it is not drawn."""
    y: float = MARGIN

    def text(self, x: float, y: float, words: str, size: float = 8.5, **style: Any) -> None:
        """Plain text with its top left corner at (x, y); a $ is a $."""
        style = {"color": INK, "family": SANS, "va": "top", **style}
        self.axes.text(x, y, printable(words), fontsize=size, parse_math=False, **style)

    def line(self, xs: Sequence[float], ys: Sequence[float], **style: Any) -> None:
        self.axes.plot(xs, ys, **{"color": LINE, "lw": 0.8, "solid_capstyle": "butt", **style})

    def image(self, example: Example, x: float, side: float, frame: str = LINE) -> None:
        """The whole image in a square cell whose top left corner is (x, self.y)."""
        from matplotlib.patches import Rectangle

        from sae.data.images import BadImage

        cell = Rectangle((x, self.y), side, side, facecolor="white", edgecolor=frame, lw=0.9)
        self.axes.add_patch(cell)
        try:
            picture = self.source.image(example)
        except BadImage:
            self.text(x + side / 2, self.y + side / 2, "missing", 7, color=SOFT, ha="center")
            return
        picture.thumbnail((_SOURCE_PIXELS, _SOURCE_PIXELS))
        scale = (side - 0.03) / max(picture.size)
        w, h = picture.width * scale, picture.height * scale
        left, top = x + (side - w) / 2, self.y + (side - h) / 2
        extent = (left, left + w, top + h, top)
        pixels, heat = np.asarray(picture), self.heat_of and self.heat_of(example)
        if heat is not None:
            pixels = paint_heat(pixels, heat)
        self.axes.imshow(pixels, extent=extent, aspect="auto", zorder=2)

    def heading(self, words: str, note: str = "") -> None:
        self.text(MARGIN, self.y, words, 10, weight="bold")
        self.text(WIDTH - MARGIN, self.y + 0.02, note, 8, color=SOFT, ha="right")
        self.line((MARGIN, WIDTH - MARGIN), (self.y + 0.25, self.y + 0.25))
        self.y += 0.36


def paint_heat(pixels: NDArray[np.uint8], heat: Heat) -> NDArray[np.uint8]:
    """(h, w, 3) with red where a latent answers."""
    share = HEAVIEST / 255 * heat.spread((pixels.shape[1], pixels.shape[0]))[..., None]  # (h, w, 1)
    return (pixels + share * (np.array(HOT) - pixels)).round().astype(np.uint8)


def one_line(words: str, most: int) -> str:
    """Words as they stand in a row of a table: printable, blanks joined, at most `most` signs."""
    line = " ".join(printable(words).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def printable(words: str) -> str:
    """Control and direction signs as spaces: a label cannot disturb the sheet."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in words)
