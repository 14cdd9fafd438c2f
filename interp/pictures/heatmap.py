"""Where a latent responded, drawn on the image: an outline and a faded surrounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sae.data.view import Heat

MAGENTA = (255, 0, 255)
_SMALLEST = 0.015
"""Share of the picture; smaller regions are dropped as noise."""
_FADED = 160
_LINE = 2

Mask = NDArray[np.bool_]


def outline(image: Image.Image, heat: Heat) -> Image.Image:
    """A 2-px magenta outline around the region at half the maximum; the rest is half faded to grey.

    Grey, not black or blur: black strokes and thin lines stay visible.
    """
    from scipy import ndimage

    mask = region(heat, image.size)
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)  # (h, w, 3)
    drawn = np.where(mask[..., None], pixels, (pixels + _FADED) // 2)
    drawn[mask & ~ndimage.binary_erosion(mask, iterations=_LINE)] = MAGENTA
    return Image.fromarray(drawn.astype(np.uint8))


def region(heat: Heat, size: tuple[int, int]) -> Mask:
    """(h, w) bool for an image of `size` (w, h): where the response is at least half its maximum.

    Regions under 1.5% of the picture are dropped, unless nothing would be left.
    """
    return _without_specks(heat.mask(size), _SMALLEST * size[0] * size[1])


def _without_specks(mask: Mask, least: float) -> Mask:
    from scipy import ndimage

    labels, _ = ndimage.label(mask)  # 4-connected regions, from 1; 0 is outside
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    keep = areas >= min(least, areas.max(initial=0))
    keep[0] = False
    kept: Mask = keep[labels]
    return kept
