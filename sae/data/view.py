"""An image's size and how a model cuts images -> where the model's patches lie on the image."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sae.core.clip_name import FILE, split_adapter
from sae.core.errors import UserError
from sae.core.files import MOST_JSON, parse_object

View = Literal["crop", "squash", "pad"]
"""`crop`: the largest centred part of the model's shape, most often a square; `squash`: the whole
image, stretched to that shape; `pad`: the whole image with borders that fill the shape."""
StoredView = Literal["", "crop", "squash", "pad"]
"""As files have it: "" where they do not tell."""
VIEWS: dict[str, View] = {"shortest": "crop", "squash": "squash", "longest": "pad"}
"""By open_clip's `resize_mode`."""
_SQUASHING = re.compile(r"tiny|.*(siglip|clipa|pe-core|dfn5b|worldwide-378).*", re.IGNORECASE)
"""Names of open_clip's models that squash; all others of its list crop (a test compares)."""


class Box(NamedTuple):
    """A part of an image in pixels; beyond the image where that was padded."""

    left: int
    top: int
    width: int
    height: int


def view_box(size: tuple[int, int], view: View, aspect: float = 1.0) -> Box:
    """The part of an image of `size` (w, h) on which all patches together lie.

    `aspect` is width over height of the model's input: of its columns and rows of patches.
    """
    width, height = size
    if view != "squash":
        fits = min if view == "crop" else max
        width, height = fits(width, round(height * aspect)), fits(height, round(width / aspect))
        width, height = max(1, width), max(1, height)
    return Box((size[0] - width) // 2, (size[1] - height) // 2, width, height)


class Heat(NamedTuple):
    """How strongly a latent answers on each patch of one image."""

    values: NDArray[np.uint8]
    """(rows, columns) of patches; 255 = the image's largest."""
    view: View

    @classmethod
    def of(cls, packed: bytes, view: View, grid: tuple[int, ...] = ()) -> Heat:
        """From a byte a patch in row-major order; `grid` (rows, columns), or a square."""
        side = math.isqrt(len(packed))
        return cls(np.frombuffer(packed, np.uint8).reshape(grid or (side, side)), view)

    @property
    def aspect(self) -> float:
        """Of the model's input, as `view_box` takes it."""
        return float(self.values.shape[1] / self.values.shape[0])

    def spread(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(h, w) over an image of `size` (w, h), between the patches' centres linear; 0 where the
        model saw nothing of it."""
        left, top, width, height = view_box(size, self.view, self.aspect)
        page = Image.new("L", size)
        patches = Image.fromarray(self.values)
        page.paste(patches.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        return np.asarray(page)

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """(h, w): where the response is at least half the largest on the image; nowhere for 0."""
        spread = self.spread(size)
        return spread >= max(1.0, 0.5 * int(spread.max()))


def find_view(clip: str) -> View | None:
    """How the model of that name cuts images, without loading it; None where nothing tells."""
    base, _ = split_adapter(clip)
    kind, _, folder = base.partition(":")
    if kind != "local-dir":
        # open_clip gives weights of no tag, and of a file, the transform of OpenAI's CLIP.
        plain = base.endswith("/random") or FILE in base
        squashes = _SQUASHING.fullmatch(base) and not plain
        return "squash" if squashes else "crop"
    place = Path(folder) / "open_clip_config.json"
    try:
        with place.open("rb") as file:
            config = parse_object(file.read(MOST_JSON), str(place)).get("preprocess_cfg", {})
    except (OSError, UserError):
        return None
    return VIEWS.get(config.get("resize_mode", "shortest")) if isinstance(config, dict) else None
