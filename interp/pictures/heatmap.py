"""Where a latent responded, drawn on the image: an outline and a faded surrounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sae.data.view import Heat, view_box

MAGENTA = (255, 0, 255)
_SMALLEST = 0.015
"""Share of the picture; smaller regions are dropped as noise."""
_FADED = 160
_LINE = 2

_REST = 64
"""Of 255: a region is not moved to where the latent answers with a quarter of its most."""

Mask = NDArray[np.bool_]
Patches = NDArray[np.uint8]


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


def peak_region(heat: Heat) -> Heat:
    """Only the connected patches (4 neighbours) of at least half the most, around the strongest."""
    return heat._replace(values=_peak_patches(heat.values))


def can_be_moved(heat: Heat) -> bool:
    """Whether `moved_region` finds a place."""
    return bool(_places(heat.values))


def moved_region(image: Image.Image, heat: Heat) -> Heat:
    """`peak_region` at another place of the image, where the latent is quiet.

    Of all such places the one whose ink is most like the region's own: bare paper would give the
    moved one away.
    """
    region, ink = _peak_patches(heat.values), _ink(image, heat)
    own = ink[region > 0].mean()
    places = _places(heat.values)
    nearest = min(places, key=lambda moved: abs(float(ink[moved > 0].mean() - own)))
    return heat._replace(values=nearest)


def _without_specks(mask: Mask, least: float) -> Mask:
    from scipy import ndimage

    labels, _ = ndimage.label(mask)  # 4-connected regions, from 1; 0 is outside
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    keep = areas >= min(least, areas.max(initial=0))
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def _peak_patches(values: Patches) -> Patches:
    """255 on the patches of `peak_region`, 0 elsewhere."""
    from scipy import ndimage

    labels, _ = ndimage.label(values >= max(1, 0.5 * int(values.max())))
    kept = (labels == labels[np.unravel_index(values.argmax(), values.shape)]) & (labels > 0)
    return np.where(kept, 255, 0).astype(np.uint8)


def _places(values: Patches) -> list[Patches]:
    """The region at every place of the image that holds it whole and where the latent is quiet."""
    region = _peak_patches(values)
    rows, columns = np.nonzero(region)
    if not len(rows):
        return []
    busy = values >= _REST
    found = []
    for down in range(-rows.min(), values.shape[0] - rows.max()):
        for right in range(-columns.min(), values.shape[1] - columns.max()):
            if not busy[rows + down, columns + right].any():
                moved = np.zeros_like(region)
                moved[rows + down, columns + right] = 255
                found.append(moved)
    return found


def _ink(image: Image.Image, heat: Heat) -> NDArray[np.float64]:
    """(rows, columns) how far each patch's grey is from the paper's, the median of the border."""
    grey = np.asarray(image.convert("L")).astype(np.int16)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = Image.fromarray(np.abs(grey - int(np.median(border))).astype(np.uint8))
    left, top, width, height = view_box(image.size, heat.view, heat.aspect)
    size = heat.values.shape[::-1]
    seen = ink.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BOX)
    return np.asarray(seen).astype(np.float64)
