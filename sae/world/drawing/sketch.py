"""A scene and its outlines -> a sketch: ink lines of a slightly shaky hand on paper."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from sae.world.drawing import raster
from sae.world.drawing.raster import Outline, Pixels
from sae.world.scene.random import Stream, stream
from sae.world.scene.scene import Scene

LINE_WIDTHS = {"thin": 0.75, "medium": 1.4, "thick": 2.7}
"""In units of 1/64 of the picture."""
SHADED = ("main", "second")
OPEN = ("white", "dark")
"""What stays open, with a thin outline, when an object is filled with ink."""
_SECOND_LINE_SHARE = 0.12


def wobble_of(hand: Generator) -> float:
    """How shaky this picture's hand is, as a part of the object's box."""
    return float(hand.uniform(0.008, 0.022))


def paint(scene: Scene, objects: list[list[Outline]], size: int) -> Pixels:
    """(size, size, 3) in [0, 255]. `objects` holds the outlines of every placed object."""
    hand = stream(scene.seed, Stream.HAND, len(objects))
    ink = _ink(scene, objects, size, hand)
    light = stream(scene.seed, Stream.LIGHT)
    blackness = light.uniform(10, 70)
    sheet = 248 - 8 * raster.clouds(light, size, 3)
    if scene.background == "lined paper":
        sheet -= 75 * _ruled_lines(size)[:, None]
    image = sheet + ink * (blackness - sheet)
    image += 2.5 * raster.grain(stream(scene.seed, Stream.NOISE), size)
    return np.repeat(image[:, :, None], 3, axis=2)


def line_width(scene: Scene, scale: float, hand: Generator) -> float:
    """In units; the lines of a large object are a little wider."""
    width = LINE_WIDTHS[scene.width] * hand.uniform(0.92, 1.1)
    return float(width if scene.width == "thick" else width * (0.8 + 0.35 * min(1, scale / 0.6)))


def _ink(scene: Scene, objects: list[list[Outline]], size: int, hand: Generator) -> Pixels:
    """(size, size) in [0, 1]: how much ink lies on each pixel."""
    oversampling = 4 if size <= 64 else 3 if size <= 192 else 2
    side = size * oversampling
    lines = Image.new("L", (side, side), 0)
    of_object = [scene.pattern_of(placed) for placed in scene.objects]
    patterns = sorted({*of_object} - {""})
    shades = {pattern: Image.new("L", (side, side), 0) for pattern in patterns}
    for placed, outlines, own in zip(scene.objects, objects, of_object, strict=True):
        width = line_width(scene, placed.scale, hand) * side / raster.UNITS
        _draw_object(scene, outlines, width, ImageDraw.Draw(lines), hand)
        for pattern, shade in shades.items():  # an object hides the patterns of those behind it
            _draw_shade(outlines, ImageDraw.Draw(shade), SHADED if pattern == own else ())
    ink = np.asarray(lines.reduce(oversampling), dtype=np.float32) / np.float32(255)
    phase = stream(scene.seed, Stream.GEOMETRY).uniform(0, 2 * np.pi)
    centres = raster.pixel_centres(size)
    for kind, shade in shades.items():
        covered = np.asarray(shade.reduce(oversampling), dtype=np.float32) / np.float32(255)
        scale = scene.objects[of_object.index(kind)].scale
        pattern_ink = raster.pattern_on(kind, scale, phase, centres, centres)
        ink = np.maximum(ink, 0.88 * covered * pattern_ink)
    return ink


def _draw_object(
    scene: Scene, outlines: list[Outline], width: float, pen: ImageDraw.ImageDraw, hand: Generator
) -> None:
    side = pen.im.size[0]
    for outline in outlines:
        points, fill = outline.on(side), outline.fill
        if fill is not None:
            # What lies behind a part is hidden by it.
            pen.polygon(raster.flat(points), fill=_body_ink(fill, scene.filled))
        style = "solid" if fill == "dark" else scene.stroke
        open_part = scene.filled and fill in OPEN
        raster.draw_line(pen, points, 0.6 * width if open_part else width, style, 255)
        if scene.stroke == "solid" and hand.random() < _SECOND_LINE_SHARE and not scene.filled:
            shifted = points + hand.normal(0, 0.45 * width, 2)
            raster.draw_line(pen, shifted, 0.6 * width, "solid", 200)


def _body_ink(fill: str, filled: bool) -> int:
    if filled:
        return 0 if fill in OPEN else 235
    return 225 if fill == "dark" else 0


def _draw_shade(outlines: list[Outline], pen: ImageDraw.ImageDraw, shaded: tuple[str, ...]) -> None:
    side = pen.im.size[0]
    for outline in outlines:
        if outline.fill is not None:
            pen.polygon(raster.flat(outline.on(side)), fill=255 * (outline.fill in shaded))


def _ruled_lines(size: int) -> Pixels:
    """(size,) in [0, 1]: one line every eight units, one unit wide."""
    distance = np.abs((raster.pixel_centres(size) - 0.5) % 8 - 4)
    return np.clip((0.5 - distance) * size / raster.UNITS + 0.5, 0, 1).astype(np.float32)
