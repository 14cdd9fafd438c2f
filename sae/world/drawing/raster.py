"""Paths on a canvas, patterns and noise: what the sketch and the photo draw with.

Lengths are in units of 1/64 of the picture, and noise is drawn on a 64 x 64 grid and then resized:
a drawing looks the same at every size.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sae.world.objects.shapes import Fill, Part, Parts, Points
from sae.world.scene.scene import Placed

Pixels = NDArray[np.float32]
Coordinates = NDArray[np.float64]
"""Sines are taken of these: in double precision they round alike on every machine."""
UNITS = 64
"""The side of the picture in the unit of every width, period and grain."""
MASK_SIDE = 256
"""Masks are drawn at one size and then resized, so they agree at every size."""
_SHARP_TURN_COSINE = 0.94


class Outline:
    """A part of an object, placed in the picture [-1, 1] x [-1, 1]."""

    __slots__ = ("fill", "points")

    def __init__(self, points: Points, fill: Fill | None) -> None:
        self.points = points  # (n, 2)
        self.fill = fill

    def on(self, side: float) -> Points:
        """The points in pixels of a canvas of that side."""
        return (self.points + 1) * (side / 2)


def placed_outlines(parts: Parts, placed: Placed, wobble: float, hand: Generator) -> list[Outline]:
    """The parts turned, scaled and moved to their place, bent by a hand that wobbles.

    `wobble` is the amplitude as a part of the object's box.
    """
    cos, sin = np.cos(placed.angle), np.sin(placed.angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * placed.scale
    stretch = np.array([[placed.aspect], [1 / placed.aspect]])
    matrix, centre = stretch * turn, np.asarray(placed.centre)
    return [
        Outline(wobble_outline(part, wobble, hand) @ matrix + centre, part.fill) for part in parts
    ]


def wobble_outline(part: Part, amplitude: float, hand: Generator) -> Points:
    """The points moved by two slow sine waves in x and in y."""
    n_points = len(part.points)
    t = np.arange(n_points) / max(8, n_points)
    cycles, phases = hand.uniform(0.5, 3.5, (2, 2, 1)), hand.uniform(0, 2 * np.pi, (2, 2, 1))
    waves = np.sin(2 * np.pi * cycles * t + phases).sum(axis=1)  # (2, n)
    bent: Points = part.points + amplitude * waves.T
    return bent


def flat(points: Points) -> list[float]:
    """The points as Pillow wants them: x0, y0, x1, y1 ..."""
    flattened: list[float] = points.ravel().tolist()
    return flattened


def draw_line(pen: ImageDraw.ImageDraw, points: Points, width: float, style: str, ink: int) -> None:
    """A line along the points; `width` in pixels of the canvas, `style` solid, dashed or dotted."""
    if style == "dashed":
        for dash in _dashes(points, 2.6 * width + 1, 1.9 * width + 1):
            pen.line(flat(dash), fill=ink, width=max(1, round(width)))
    elif style == "dotted":
        radius = 0.66 * width
        for x, y in _spaced(points, 2.7 * width):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    else:
        pen.line(flat(points), fill=ink, width=max(1, round(width)))
        if width >= 3:
            _round_off(pen, points, width / 2, ink)


def _round_off(pen: ImageDraw.ImageDraw, points: Points, radius: float, ink: int) -> None:
    """Round caps at both ends and at sharp corners, where Pillow leaves a notch."""
    steps = np.diff(points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    dots = (steps[1:] * steps[:-1]).sum(axis=1)
    # A wide line needs its joints at smaller turns.
    sharp = dots < _SHARP_TURN_COSINE * lengths[1:] * lengths[:-1] + 1e-9
    for x, y in points[np.concatenate([[True], sharp, [True]])].tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _lengths_along(points: Points) -> NDArray[np.float64]:
    steps = np.diff(points, axis=0)
    return np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])


def _at(points: Points, along: NDArray[np.float64], where: NDArray[np.float64]) -> Points:
    x, y = (np.interp(where, along, points[:, axis]) for axis in range(2))
    return np.stack([x, y], axis=-1)


def _spaced(points: Points, step: float) -> list[list[float]]:
    along = _lengths_along(points)
    spaced: list[list[float]] = _at(points, along, np.arange(0, along[-1], step)).tolist()
    return spaced


def _dashes(points: Points, dash: float, gap: float) -> Points:
    """(n_dashes, 4, 2): every dash as four points of the path."""
    along = _lengths_along(points)
    starts = np.arange(0, along[-1], dash + gap)
    where = starts[:, None] + dash * np.linspace(0, 1, 4)
    return _at(points, along, np.minimum(where, along[-1]))


def silhouette(outlines: list[Outline], line_width: float, size: int) -> NDArray[np.bool_]:
    """(size, size): the object's area with its lines, at least three units wide."""
    canvas = Image.new("L", (MASK_SIDE, MASK_SIDE), 0)
    pen = ImageDraw.Draw(canvas)
    for outline in outlines:
        points = outline.on(MASK_SIDE)
        if outline.fill is not None:
            pen.polygon(flat(points), fill=255)
        width = line_width if outline.fill is not None else max(3.0, line_width)
        pen.line(flat(points), fill=255, width=max(1, round(width * MASK_SIDE / UNITS)))
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX)) > 127


def pattern_on(kind: str, scale: float, phase: float, xs: Coordinates, ys: Coordinates) -> Pixels:
    """(len(ys), len(xs)) in [0, 1]: stripes, spots or checks at pixel centres given in units."""
    period = 4.4 + 5.5 * scale
    x, y = xs[None, :], ys[:, None]
    if kind == "checkered":
        across = np.sin(2 * np.pi * x / (period * 1.4) + phase).astype(np.float32)
        down = np.sin(2 * np.pi * y / (period * 1.4) + phase).astype(np.float32)
        checks: Pixels = np.clip(0.5 + 4 * across * down, 0, 1)
        return checks
    u = (x * np.cos(0.78) + y * np.sin(0.78)) * (2 * np.pi / period) + phase
    if kind == "striped":
        stripes: Pixels = np.clip(0.5 + 2.2 * np.sin(u), 0, 1).astype(np.float32)
        return stripes
    v = (y * np.cos(0.78) - x * np.sin(0.78)) * (2 * np.pi / period) + phase
    spots: Pixels = np.clip(2.6 * (np.cos(u) + np.cos(v) - 0.75), 0, 1).astype(np.float32)
    return spots


def pixel_centres(size: int) -> Coordinates:
    """(size,): where the pixels of a row lie, in units."""
    return (np.arange(size, dtype=np.float64) + 0.5) * (UNITS / size)


def clouds(rng: Generator, size: int, n_cells: int) -> Pixels:
    """(size, size) in about [0, 1]: smooth noise with `n_cells` cells a side."""
    cells = (rng.random((n_cells, n_cells)) * 255).astype(np.uint8)
    smooth = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / np.float32(255)


def grain(rng: Generator, size: int) -> Pixels:
    """(size, size) normal noise with a grain of one unit, and a finer one for finer pixels."""
    coarse = rng.standard_normal((UNITS, UNITS), dtype=np.float32)
    if size == UNITS:
        return coarse
    resized = Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)
    if size < UNITS:
        return np.asarray(resized)
    fine: Pixels = 0.7 * rng.standard_normal((size, size), dtype=np.float32)
    return np.asarray(resized) + fine
