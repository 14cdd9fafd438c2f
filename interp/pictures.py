"""Examples -> their images, without those that can no longer be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PIL import Image

from interp.records import Example
from sae.images import BadImage

Images = Callable[[Example], Image.Image]
"""Gives an example's picture (`EvidenceReader.image`); raises `BadImage`."""


def read_images(images: Images, examples: Iterable[Example]) -> dict[Example, Image.Image]:
    """The pictures in the order of `examples`; a file that went bad since is left out."""
    shown: dict[Example, Image.Image] = {}
    for example in examples:
        try:
            shown[example] = images(example)
        except BadImage:
            continue
    return shown
