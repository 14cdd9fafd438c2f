"""A scene -> pixels, with a mask for every object."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.world.drawing import photo, raster, sketch
from sae.world.drawing.raster import Outline
from sae.world.objects.catalogue import DRAWN
from sae.world.scene.random import Stream, stream
from sae.world.scene.scene import Scene

SMALLEST, LARGEST = 32, 512
_MASK_LINE_WIDTH = 1.4


class Drawing(NamedTuple):
    """A picture and where its objects are."""

    pixels: NDArray[np.uint8]  # (size, size, 3), RGB
    masks: NDArray[np.bool_]  # (n_objects, size, size), in the order of `scene.objects`


def draw(scene: Scene, size: int = 128) -> Drawing:
    """Draw the scene `size` pixels wide and high; the picture looks the same at every size.

    Raises `ValueError` for a size outside 32 to 512.
    """
    outlines = _all_outlines(scene)
    return Drawing(_paint(scene, outlines, size), _masks(outlines, size))


def draw_pixels(scene: Scene, size: int = 128) -> NDArray[np.uint8]:
    """The pixels of `draw` without its masks, which cost a tenth of the time."""
    return _paint(scene, _all_outlines(scene), size)


def _paint(scene: Scene, outlines: list[list[Outline]], size: int) -> NDArray[np.uint8]:
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size {size} is not between {SMALLEST} and {LARGEST}")
    image: raster.Pixels = _painter(scene).paint(scene, outlines, size)
    return np.clip(image, 0, 255).astype(np.uint8)


def _all_outlines(scene: Scene) -> list[list[Outline]]:
    wobble = _painter(scene).wobble_of(stream(scene.seed, Stream.HAND))
    return [_outlines(scene, i, wobble) for i in range(len(scene.objects))]


def _painter(scene: Scene) -> ModuleType:
    return sketch if scene.domain == "sketch" else photo


def _outlines(scene: Scene, i: int, wobble: float) -> list[Outline]:
    placed = scene.objects[i]
    parts = DRAWN[placed.name].parts(stream(scene.seed, Stream.GEOMETRY, i))
    return raster.placed_outlines(parts, placed, wobble, stream(scene.seed, Stream.HAND, i))


def _masks(objects: list[list[Outline]], size: int) -> NDArray[np.bool_]:
    masks = np.stack([raster.silhouette(o, _MASK_LINE_WIDTH, size) for o in objects])
    for later in range(1, len(masks)):
        masks[:later] &= ~masks[later]
    return masks
