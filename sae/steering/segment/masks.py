"""Masks of a store's images -> the class of each pixel that CLIP sees, and of each patch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.core.files import MOST_JSON, parse_object
from sae.data.images import BadImage, read_numbers
from sae.data.store import EmbeddingStore
from sae.data.view import Box, View, view_box

IGNORED = 255
"""Pixels and patches of no class, that count nowhere."""


class Seen(NamedTuple):
    """A mask as CLIP sees its image."""

    pixels: NDArray[np.uint8]  # (h * p, w * p), p pixels a patch
    patches: NDArray[np.uint8]
    """(h, w): the class that most pixels have, the smaller one of equal ones."""


class Masks:
    """The masks of a store's images: PNGs of class numbers under the images' relative names.

    `folder/<domain>/<path>.png`; without a folder of that name, `folder/<path>.png`.
    """

    def __init__(self, folder: Path, store: EmbeddingStore, view: View, size: int) -> None:
        self._folder, self._store, self._view, self._size = folder, store, view, size
        if not folder.is_dir():
            raise UserError(f"--masks {folder} is no folder")
        roots = {d: folder / d if (folder / d).is_dir() else folder for d in store.domains}
        columns = zip(store.images["domain"], store.images["path"], strict=True)
        self._paths = [(roots[domain] / path).with_suffix(".png") for domain, path in columns]
        self.names = _names(folder)

    def rows(self) -> NDArray[np.int64]:
        """Rows of the store whose image has a mask. Raises `UserError` when none has one."""
        found = np.flatnonzero([path.is_file() for path in self._paths])
        if not len(found):
            raise UserError(
                f"{self._folder} has no mask of {self._store.path}'s images; the first would be "
                f"{self._paths[0]}"
            )
        return found

    def name(self, number: int) -> str:
        """Of a class; its number where nobody says more."""
        return self.names[number] if number < len(self.names) else str(number)

    def read(self, row: int) -> Seen:
        """Raises `UserError` for a mask that is damaged, in colours, or of another size."""
        path, image = self._paths[row], self._store.images.iloc[row]
        try:
            mask = read_numbers(path, self._store.info.max_pixels)
        except BadImage as error:
            raise UserError(f"{path}: {error.reason}") from None
        size = (int(image["width"]), int(image["height"]))
        if mask.shape != size[::-1]:
            raise UserError(
                f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, but its image "
                f"{image['path']} has {size[0]} x {size[1]}"
            )
        h, w = grid = self._store.info.grid
        return as_seen(mask, view_box(size, self._view, w / h), grid, self._size)


def as_seen(mask: NDArray[np.uint8], box: Box, grid: Sequence[int], size: int) -> Seen:
    """The part of a mask in the box that all patches lie on, sampled at CLIP's own pixels.

    `size` is the height of CLIP's input; what the patches leave over of it at the right and below
    belongs to none. Outside the image there is no class.
    """
    h, w = grid
    p = size // h
    ys = _samples(box.top, box.height, size)
    xs = _samples(box.left, box.width, size if w == h else w * p)
    inside = (ys >= 0) & (ys < mask.shape[0]), (xs >= 0) & (xs < mask.shape[1])
    pixels = mask[ys.clip(0, mask.shape[0] - 1)[:, None], xs.clip(0, mask.shape[1] - 1)]
    pixels = np.where(inside[0][:, None] & inside[1], pixels, IGNORED)[: h * p, : w * p]
    cells = pixels.reshape(h, p, w, p).transpose(0, 2, 1, 3).reshape(h * w, p * p)
    places = np.arange(h * w)[:, None] * 256 + cells
    counts = np.bincount(places.ravel(), minlength=h * w * 256).reshape(h * w, 256)
    return Seen(pixels, counts.argmax(1).astype(np.uint8).reshape(h, w))


def _samples(start: int, length: int, n: int) -> NDArray[np.int64]:
    """The pixel in which the middle of each of n equal parts lies."""
    return start + ((np.arange(n) + 0.5) * length / n).astype(np.int64)


def _names(folder: Path) -> list[str]:
    """Those of a drawn world, of which the folder is part; [] of others."""
    world = folder / ".." / "world.json"
    if not world.is_file() or world.stat().st_size > MOST_JSON:
        return []
    names = parse_object(world.read_bytes(), str(world)).get("mask_names")
    return [str(name) for name in names] if isinstance(names, list) else []
