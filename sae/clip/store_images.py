"""Rows of a store -> its images again, for what comes behind the layer that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from PIL import Image

from sae.clip.model import Clip, Halfway, load_clip
from sae.core.errors import UserError, quote
from sae.data.images import BadImage, read_image
from sae.data.store import EmbeddingStore

if TYPE_CHECKING:
    import numpy as np


def load_clip_of(store: EmbeddingStore, device: str) -> Clip:
    """The CLIP of a store. Raises `UserError` where another lab's store does not name it."""
    if not store.info.clip:
        raise UserError(
            f"{store.path} does not say which CLIP it was made with; "
            f"`sae adopt {quote(store.path)} --clip NAME --out STORE` writes it down"
        )
    clip = load_clip(store.info.clip, device)
    require_same_adapter(clip, store)
    return clip


def require_same_adapter(clip: Clip, store: EmbeddingStore) -> None:
    """Raise `UserError` where the adapter's file is not the one that the store was embedded with;
    a foreign store may not say.
    """
    if store.info.clip_sha and clip.adapter_sha != store.info.adapter_sha:
        raise UserError(
            f"the adapter of {clip.name} has sha256 {clip.adapter_sha or 'of no file'}, but "
            f"{store.path} was embedded with {store.info.adapter_sha or 'none'}; put that file "
            "back, or run `sae embed` again into another --out"
        )


def require_same_weights(clip: Clip, store: EmbeddingStore) -> None:
    """Raise `UserError` where the store was embedded with others; a foreign store may not say."""
    require_same_adapter(clip, store)
    if store.info.clip_sha not in ("", clip.sha):
        raise UserError(
            f"{clip.name} now has weights {clip.sha}, but {store.path} was embedded with "
            f"{store.info.clip_sha}; run `sae embed` again"
        )


def read_store_image(store: EmbeddingStore, row: int, remedy: str = "put it back") -> Image.Image:
    """The image of a row. Raises `UserError` when it is not as it was embedded."""
    path = store.image_path(row)
    try:
        image_id, image = read_image(path, store.info.max_pixels)
    except BadImage as error:
        raise UserError(f"{path}: {error.reason}; {remedy}") from None
    if image_id != store.images["image_id"].iloc[row]:
        raise UserError(f"{path} has changed since it was embedded; run `sae embed` again")
    return image


def run_to_layer(clip: Clip, store: EmbeddingStore, rows: NDArray[np.int64]) -> Halfway:
    """The network stopped behind the store's layer, for its images at `rows`.

    Of the projected layer there is nothing behind: the store's own embeddings, without the images.
    """
    if store.info.layer == "projected":
        x = store.read(rows).to(clip.device).float()  # (b, 1, d)
        return Halfway("projected", x, x.new_empty(0))
    pixels = torch.stack([clip.preprocess(read_store_image(store, int(row))) for row in rows])
    return clip.run_to(pixels, store.info.layer)
