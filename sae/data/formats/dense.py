"""Latents that were written down: latents.npy (n_images, n_latents), and captions.json beside it.

As clip_sae_for_sketches writes them. They open as a store whose embeddings are the latents
themselves (layer "latents"); what is collected from it needs no SAE. With another layer an array
holds that layer's embeddings: `x.npy@projected`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.data.formats.layout import Choice, Labels, Layout
from sae.data.tokens import tokens_named
from sae.untrusted.json_file import json_object
from sae.untrusted.npy_file import mapped_rows

NAME = "dense latents"
LAYER = "latents"
"""What `StoreInfo.layer` says of such a store."""
ARRAY, CAPTIONS = "latents.npy", "captions.json"
_ARTICLES = ("a sketch of a ", "a sketch of an ")
_N_HASHED = 64


def find(path: Path) -> Path | None:
    """The array at a path: an .npy file, or a folder with latents.npy."""
    if path.is_file():
        return path if path.suffix == ".npy" else None
    return path / ARRAY if (path / ARRAY).is_file() else None


def read(path: Path, choice: Choice) -> Layout:
    """Raises `UserError` for an array of objects, of other axes, or with other captions."""
    if tokens_named(choice.tokens or "cls") != "cls":
        raise UserError(f"{path} holds one vector an image: it has no tokens to choose")
    array = _mapped(path)
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array[:_N_HASHED]).tobytes())
    digest.update(np.ascontiguousarray(array[-_N_HASHED:]).tobytes())
    labels = _labels(path.with_name(CAPTIONS), len(array))
    return Layout(
        form=NAME,
        files=(path,),
        rows=(len(array),),
        stride=1,
        first=0,
        d=array.shape[1],
        tokens_per_image=1,
        grid=[],
        dtype="float16" if array.dtype.itemsize == 2 else "float32",
        clip=choice.clip,
        layer=choice.layer or LAYER,
        tokens="cls",
        fingerprint=digest.hexdigest(),
        vectors=lambda _shard: _mapped(path),
        labels=lambda: labels,
    )


def _mapped(path: Path) -> NDArray[Any]:
    return mapped_rows(path, "latents are (n_images, n_latents) floats")


def _labels(path: Path, n_images: int) -> Labels:
    """Each image's class from its caption "a sketch of a CLASS"; another caption stays whole."""
    if not path.is_file():
        return Labels([], "caption")
    captions = json_object(path)
    if len(captions) != n_images:
        raise UserError(f"{path} has {len(captions)} captions for the {n_images} images of {ARRAY}")
    lacking = next((row for row in range(n_images) if str(row) not in captions), None)
    if lacking is not None:
        raise UserError(f'{path} has no caption "{lacking}"; captions are numbered from 0')
    texts = [str(captions[str(row)]) for row in range(n_images)]
    of_classes = all(text.startswith(_ARTICLES) for text in texts)
    return Labels([_class_in(text) for text in texts], "name" if of_classes else "caption")


def _class_in(caption: str) -> str:
    article = next((a for a in _ARTICLES[::-1] if caption.startswith(a)), "")
    return caption.removeprefix(article).strip()
