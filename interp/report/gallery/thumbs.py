"""Small pictures for the gallery: each distinct image once, kept from one build to the next."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from interp.records.types import Example
from sae.core.errors import UserError
from sae.core.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

THUMB_SIZE = 112
"""Longest side in pixels."""
QUALITY = 80


class ImageSource(Protocol):
    """What pictures of a report need of `interp.evidence.reader.EvidenceReader`."""

    def image(self, example: Example) -> Image: ...


class SmallImageSource(Protocol):
    """What thumbnails need of it."""

    def image(self, example: Example, longest: int) -> Image: ...


def thumbnail(image: Image) -> bytes:
    """WebP of at most 112 x 112 pixels, the whole image, never enlarged."""
    from PIL import Image as pil

    small = image.copy()
    small.thumbnail((THUMB_SIZE, THUMB_SIZE), pil.Resampling.HAMMING, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()


def thumb_path(folder: Path, image_id: str) -> Path:
    """`<folder>/thumbs/ab/<image_id>.webp`; UserError for an id that is no content hash."""
    if not re.fullmatch(r"[0-9a-f]{64}", image_id):
        raise UserError(f"{image_id[:80]!r} is no image id (64 hex digits); run `interp collect`")
    return folder / "thumbs" / image_id[:2] / f"{image_id}.webp"


class Thumbs:
    """The thumbnails of one gallery folder. State: which images are there and which cannot be."""

    def __init__(self, source: SmallImageSource, folder: Path, earlier: Path) -> None:
        self.source = source
        self.folder = folder
        self.earlier = earlier  # a finished gallery to take pictures from; need not exist
        self.there: set[str] = set()
        self.missing: set[str] = set()
        self._made, self._kept = (_names(of) for of in (folder, earlier))

    def ensure(self, examples: Iterable[Example]) -> None:
        """Make the pictures that are not there yet; unreadable images end up in `missing`."""
        wanted = {e.image_id: e for e in examples}
        new = [e for i, e in wanted.items() if i not in self.there and i not in self.missing]
        # Pillow decodes outside the interpreter lock, so threads are enough; beside each other they
        # take a quarter more, so one core has none.
        cores = _n_cores()
        if cores == 1:
            made = list(map(self._make, new))
        else:
            with ThreadPoolExecutor(cores) as pool:
                made = list(pool.map(self._make, new))
        for example, ok in zip(new, made, strict=True):
            (self.there if ok else self.missing).add(example.image_id)

    def prune(self) -> None:
        """Remove what an interrupted build left and this one does not need."""
        for path in self.folder.glob("thumbs/*/*"):
            if path.suffix != ".webp" or path.stem not in self.there:
                path.unlink()

    def _make(self, example: Example) -> bool:
        from sae.data.images import BadImage

        target = thumb_path(self.folder, example.image_id)
        if target.name in self._made:
            return True
        try:
            if target.name in self._kept:
                with replacing(target) as part:
                    shutil.copyfile(thumb_path(self.earlier, example.image_id), part)
                return True
            data = thumbnail(self.source.image(example, 2 * THUMB_SIZE))
            with replacing(target) as part:
                part.write_bytes(data)
        except BadImage:
            return False
        return True


def _n_cores() -> int:
    """That this process may use."""
    has_share = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_share else os.cpu_count() or 1


def _names(folder: Path) -> frozenset[str]:
    """The whole thumbnails of a gallery's folder, which need not exist."""
    return frozenset(path.name for path in folder.glob("thumbs/*/*.webp"))
