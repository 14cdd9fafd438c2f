"""Images of a latent -> small pictures inside a page, as data URIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.records.types import Example
from interp.report.canvas import paint_heat
from interp.report.gallery.thumbs import THUMB_SIZE
from interp.report.single.html import webp_uri
from sae.data.images import BadImage

if TYPE_CHECKING:
    from PIL.Image import Image

    from interp.evidence.reader import EvidenceReader


class Fineness(NamedTuple):
    """How many pictures a card shows, and how fine they are."""

    n_top: int
    """Strongest ones of each domain."""
    n_stratum: int
    """Of each part of the range."""
    n_judged: int
    """Of the held-out test, in all."""
    side: int
    """Longest side in pixels."""
    quality: int
    """Of WebP."""
    n_related: int = 0
    """Of each kind of latents that are like this one."""
    n_letters: int = 0
    """Of prompts and replies, in all."""


LADDER = (
    Fineness(8, 2, 24, THUMB_SIZE, 80, 6, 20_000),
    Fineness(8, 2, 24, THUMB_SIZE, 60, 6, 20_000),
    Fineness(8, 2, 16, 96, 50, 6, 12_000),
    Fineness(6, 2, 12, 80, 45, 6, 8_000),
    Fineness(4, 1, 8, 64, 40, 4, 4_000),
    Fineness(2, 1, 4, 48, 30, 2, 2_000),
    Fineness(0, 0, 0, 0, 0, 0, 0),
)
"""From the finest on; a card takes the first that fits into a file."""


def read_small(reader: EvidenceReader, images: Mapping[str, Example]) -> dict[str, Image]:
    """By id, at most `THUMB_SIZE` wide and high, with heat where a latent of patches answers; an
    image that is not as it was embedded is left out, and noted by the reader."""
    from PIL import Image as pil

    found = {}
    for image_id, example in images.items():
        try:
            small = reader.image(example)
        except BadImage:
            continue
        small.thumbnail((THUMB_SIZE, THUMB_SIZE), pil.Resampling.LANCZOS, reducing_gap=3.0)
        heat = reader.heat(example)
        if heat is not None:
            small = pil.fromarray(paint_heat(np.asarray(small), heat))
        found[image_id] = small
    return found


def data_uri(image: Image, fineness: Fineness) -> str:
    """WebP of the whole image, never enlarged."""
    small = image.copy()
    small.thumbnail((fineness.side, fineness.side))
    return webp_uri(small, fineness.quality, 4)
