"""A scene and its outlines -> a photo: shaded objects that throw a shadow on a background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sae.world.drawing import raster
from sae.world.drawing.backgrounds import backdrop
from sae.world.drawing.raster import Outline, Pixels
from sae.world.objects.catalogue import DRAWN
from sae.world.objects.shapes import Points
from sae.world.scene.random import Stream, stream
from sae.world.scene.scene import Placed, Scene

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 35),
    "orange": (240, 135, 25),
    "yellow": (240, 215, 40),
    "green": (45, 150, 55),
    "blue": (40, 85, 205),
    "purple": (125, 50, 165),
    "pink": (245, 140, 180),
    "brown": (120, 75, 40),
    "white": (238, 238, 236),
    "black": (35, 35, 38),
}
FIXED: dict[str, tuple[int, int, int]] = {
    "white": (232, 230, 225),
    "dark": (30, 28, 30),
    "wood": (110, 72, 42),
    "leaf": (60, 140, 60),
    "gold": (245, 205, 60),
    "orange": (240, 140, 40),
}
WIRE = (50, 45, 45)
"""The colour of a bare line on an object that also has an area."""
PATTERNED = ("main", "second")
_SHADOW_BLUR, _SHADOW_DEPTH = 1.5, 0.45


@dataclass(frozen=True)
class Light:
    """Where the light of a photo comes from."""

    x: float
    y: float

    @property
    def shadow_shift(self) -> NDArray[np.float64]:
        """How far the shadow falls, in the picture [-1, 1]."""
        return np.array([-self.x, abs(self.y) + 0.5]) * 0.06


@dataclass(frozen=True)
class Box:
    """A window of the picture, in pixels: left <= x < right."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


def wobble_of(hand: Generator) -> float:
    """A photo's outlines hardly wobble."""
    return float(hand.uniform(0, 0.012))


def paint(scene: Scene, objects: list[list[Outline]], size: int) -> Pixels:
    """(size, size, 3) in [0, 255]. `objects` holds the outlines of every placed object."""
    rng = stream(scene.seed, Stream.LIGHT)
    turn = rng.uniform(0, 2 * np.pi)
    light = Light(float(np.cos(turn)), float(np.sin(turn)))
    exposure, noisiness = rng.uniform(0.9, 1.08), rng.uniform(1, 4.5)
    noise = raster.grain(stream(scene.seed, Stream.NOISE), size)
    image = backdrop(scene.background, size, stream(scene.seed, Stream.BACKGROUND, 1), noise)
    widths = [_wire_width(placed, rng) for placed in scene.objects]
    _cast_shadows(image, objects, widths, light)
    shades = {name: _shade_of(scene, name, i) for i, name in enumerate(scene.names)}
    patterns = [scene.pattern_of(placed) for placed in scene.objects]
    phase = stream(scene.seed, Stream.GEOMETRY).uniform(0, 2 * np.pi)
    things = zip(scene.objects, objects, widths, patterns, strict=True)
    for placed, outlines, width, pattern in things:
        painter = _Painter(image, placed, light, shades[placed.name], pattern, phase, noise)
        for outline in outlines:
            painter.paint(outline, width, has_area=_has_area(outlines))
        if rng.random() < 0.4 and _has_area(outlines):
            painter.shine(outlines)
    return image * np.float32(exposure) + np.float32(noisiness) * noise[::-1, ::-1, None]


def _has_area(outlines: list[Outline]) -> bool:
    return any(outline.fill in PATTERNED for outline in outlines)


def _wire_width(placed: Placed, rng: Generator) -> float:
    """Width of the bare lines in units."""
    drawn = DRAWN[placed.name]
    width = (1.9 + 3.5 * placed.scale) * rng.uniform(0.85, 1.15) * (0.6 if drawn.fine else 1)
    return float(width * (0.6 if drawn.fillable else 1))


def _shade_of(scene: Scene, name: str, i: int) -> NDArray[np.float32]:
    """The object's colour in this photo: its named colour, a little off."""
    rng = stream(scene.seed, Stream.COLOUR, 1 + i)
    colour = next(placed.colour for placed in scene.objects if placed.name == name)
    shade = np.array(COLOURS[colour]) * rng.uniform(0.9, 1.06) + rng.normal(0, 8, 3)
    return shade.astype(np.float32)


def _cast_shadows(
    image: Pixels, objects: list[list[Outline]], widths: list[float], light: Light
) -> None:
    size = len(image)
    canvas = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(canvas)
    shift = light.shadow_shift * size / 2
    for outlines, width in zip(objects, widths, strict=True):
        for outline in outlines:
            points = raster.flat(outline.on(size) + shift)
            if outline.fill is None:
                pen.line(points, fill=255, width=max(1, round(width * size / raster.UNITS)))
            else:
                pen.polygon(points, fill=255)
    blurred = canvas.filter(ImageFilter.GaussianBlur(_SHADOW_BLUR * size / raster.UNITS))
    depth = np.asarray(blurred, dtype=np.float32) * np.float32(_SHADOW_DEPTH / 255)
    image *= (1 - depth)[:, :, None]


class _Painter:
    """Paints the parts of one object onto the picture, each inside its own small box."""

    def __init__(
        self,
        image: Pixels,
        placed: Placed,
        light: Light,
        shade: NDArray[np.float32],
        pattern: str,
        phase: float,
        noise: Pixels,
    ) -> None:
        self.image = image  # (size, size, 3), painted in place
        self.size = len(image)
        self.oversampling = 3 if self.size <= 64 else 2
        self.placed = placed
        self.light = light
        self.shade = shade
        self.pattern = pattern
        self.phase = phase
        self.noise = noise  # (size, size)
        self.centres = raster.pixel_centres(self.size)

    def paint(self, outline: Outline, width: float, has_area: bool) -> None:
        """Fill one part, or draw its bare line `width` units wide."""
        margin = 1.5 * self.size / raster.UNITS
        if outline.fill is None:
            margin += width / 2 * self.size / raster.UNITS
        box = _box_around(outline.on(self.size), margin, self.size)
        if box is None:
            return
        cover = self._cover(outline, width, box)
        alpha = np.asarray(cover, dtype=np.float32) / np.float32(255)
        texture = self._relief(box)
        colour = self._colour(outline.fill, has_area)
        if outline.fill is None:
            target = colour * texture[:, :, None]
        else:
            texture = texture * (1 - self._rim(cover, alpha))
            target = self._patterned(colour, outline.fill, box) * texture[:, :, None]
        target += 4 * self.noise[box.slices][:, :, None]
        area = self.image[box.slices]
        area += alpha[:, :, None] * (target - area)

    def shine(self, outlines: list[Outline]) -> None:
        """A bright spot on the side of the light, over the object's areas only."""
        scale, (x, y) = self.placed.scale, self.placed.centre
        spot = np.array([x + self.light.x * scale * 0.4, y + self.light.y * scale * 0.4])
        box = _box_around((spot[None] + 1) * self.size / 2, 0.2 * scale * self.size, self.size)
        if box is None:
            return
        canvas = Image.new("L", (box.right - box.left, box.bottom - box.top), 0)
        pen = ImageDraw.Draw(canvas)
        for outline in outlines:
            if outline.fill is not None:
                pen.polygon(raster.flat(outline.on(self.size) - [box.left, box.top]), fill=255)
        dx = (self._across(box).astype(np.float64) - spot[0]) / (0.13 * scale)
        dy = (self._down(box).astype(np.float64) - spot[1]) / (0.13 * scale)
        bright = 70 * np.exp(-0.5 * dy * dy)[:, None] * np.exp(-0.5 * dx * dx)[None, :]
        covered = np.asarray(canvas, dtype=np.float32) / np.float32(255)
        self.image[box.slices] += (bright * covered).astype(np.float32)[:, :, None]

    def _cover(self, outline: Outline, width: float, box: Box) -> Image.Image:
        """How much of each pixel of the box the part covers, 0 to 255."""
        n = self.oversampling
        canvas = Image.new("L", ((box.right - box.left) * n, (box.bottom - box.top) * n), 0)
        pen = ImageDraw.Draw(canvas)
        points = outline.on(self.size * n) - [box.left * n, box.top * n]
        if outline.fill is None:
            raster.draw_line(pen, points, width * self.size * n / raster.UNITS, "solid", 255)
        else:
            pen.polygon(raster.flat(points), fill=255)
        return canvas.reduce(n)

    def _relief(self, box: Box) -> Pixels:
        """(height, width): brighter towards the light, as on a bulging body."""
        scale, (x, y) = max(self.placed.scale, 0.2), self.placed.centre
        across = (self._across(box) - np.float32(x)) * np.float32(self.light.x / scale)
        down = (self._down(box) - np.float32(y)) * np.float32(self.light.y / scale)
        relief: Pixels = 1 + np.float32(0.28) * np.clip(down[:, None] + across[None, :], -1, 1)
        return relief

    def _rim(self, cover: Image.Image, alpha: Pixels) -> Pixels:
        """A dark rim, so that parts of one colour stand apart."""
        blurred = cover.filter(ImageFilter.BoxBlur(self.size / raster.UNITS))
        inner = np.asarray(blurred, dtype=np.float32) / np.float32(255)
        rim: Pixels = np.float32(0.5) * np.clip((1.15 * alpha - inner) * np.float32(1.8), 0, 1)
        return rim

    def _colour(self, fill: str | None, has_area: bool) -> NDArray[np.float32]:
        if fill == "main" or (fill is None and not has_area):
            return self.shade
        if fill == "second":
            return self.shade * np.float32(0.55) + np.float32(35 * (self.shade.mean() < 70))
        return np.array(FIXED[fill] if fill else WIRE, dtype=np.float32)

    def _patterned(self, colour: NDArray[np.float32], fill: str, box: Box) -> Pixels:
        """(height, width, 3), or (3,) where the part is of one colour."""
        if not self.pattern or fill not in PATTERNED:
            return colour
        other = colour * 0.35 if colour.mean() > 110 else colour * 0.5 + 130
        xs, ys = self.centres[box.left : box.right], self.centres[box.top : box.bottom]
        part = raster.pattern_on(self.pattern, self.placed.scale, self.phase, xs, ys)[:, :, None]
        mixed: Pixels = colour + part * (other - colour)
        return mixed

    def _across(self, box: Box) -> Pixels:
        return _in_picture(self.centres[box.left : box.right])

    def _down(self, box: Box) -> Pixels:
        return _in_picture(self.centres[box.top : box.bottom])


def _in_picture(units: raster.Coordinates) -> Pixels:
    """From units to the picture [-1, 1]."""
    return (units * (2 / raster.UNITS) - 1).astype(np.float32)


def _box_around(points: Points, margin: float, size: int) -> Box | None:
    """The pixels that the points touch, or None outside the picture."""
    left, top = np.floor(points.min(axis=0) - margin).clip(0, size).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0) + margin).clip(0, size).astype(int).tolist()
    return Box(left, top, right, bottom) if left < right and top < bottom else None
