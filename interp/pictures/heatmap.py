"""Where a latent responded, drawn on the image: an outline and a faded surrounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAGENTA = (255, 0, 255)
_THRESHOLD = 0.5
"""Of the image's largest response."""
_SMALLEST = 0.015
"""Share of the picture; smaller regions are dropped as noise."""
_FADED = 160
_LINE = 2

Mask = NDArray[np.bool_]


def outlined(image: Image.Image, heat: NDArray[np.uint8]) -> Image.Image:
    """A 2-px magenta outline around the region at half the maximum; the rest is half faded to grey.

    Grey, not black or blur: black strokes and thin lines stay visible.
    """
    mask = region(heat, image.size)
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)  # (h, w, 3)
    drawn = np.where(mask[..., None], pixels, (pixels + _FADED) // 2)
    drawn[mask & ~_eroded(mask, _LINE)] = MAGENTA
    return Image.fromarray(drawn.astype(np.uint8))


def region(heat: NDArray[np.uint8], size: tuple[int, int]) -> Mask:
    """(h, w) bool for an image of `size` (w, h): where the response is at least half its maximum.

    The heat map lies over the central square, the part of the image that CLIP sees. Regions under
    1.5% of the picture are dropped, unless nothing would be left.
    """
    width, height = size
    side = min(size)
    square = np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR))
    mask = np.zeros((height, width), dtype=bool)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = square >= max(1.0, _THRESHOLD * int(square.max()))
    return _without_specks(mask, _SMALLEST * width * height)


def _without_specks(mask: Mask, least: float) -> Mask:
    labels = components(mask)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    keep = areas >= min(least, areas.max(initial=0))
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def components(mask: Mask) -> NDArray[np.int64]:
    """Number the 4-connected regions of a mask from 1; 0 is outside.

    Works on runs of pixels in a row and joins runs that touch the row above (union-find).
    """
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    rows, edges = np.nonzero(np.diff(padded, axis=1))  # starts and ends alternate in every row
    starts, ends, rows = edges[0::2], edges[1::2], rows[0::2]
    parent = list(range(len(starts)))
    first_above = 0
    for run in range(len(starts)):
        while rows[first_above] < rows[run] - 1:
            first_above += 1
        above = first_above
        while rows[above] == rows[run] - 1 and starts[above] < ends[run]:
            if ends[above] > starts[run]:
                parent[_root(parent, run)] = _root(parent, above)
            above += 1
    return _painted(mask.shape, starts, ends, rows, [_root(parent, r) for r in range(len(parent))])


def _root(parent: list[int], run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


def _painted(
    shape: tuple[int, ...],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    rows: NDArray[np.int64],
    roots: list[int],
) -> NDArray[np.int64]:
    labels = np.zeros(shape, dtype=np.int64)
    number = {root: n for n, root in enumerate(dict.fromkeys(roots), start=1)}
    for start, end, row, root in zip(starts, ends, rows, roots, strict=True):
        labels[row, start:end] = number[root]
    return labels


def _eroded(mask: Mask, n_pixels: int) -> Mask:
    """What is left when the border is taken off; outside the picture counts as outside."""
    for _ in range(n_pixels):
        p = np.pad(mask, 1)
        mask = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return mask
