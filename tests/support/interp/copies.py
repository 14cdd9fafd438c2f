"""Drawn images and copies of them as files, a store of small vectors of them, and latents that say
nothing of what is on them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sae.data.images import content_id
from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow
from sae.data.store_writer import Plan, StoreWriter
from sae.model.sae import SAEConfig
from sae.model.sparsity import Codes
from sae.world import draw, sample

D_IMAGE = 48
QUALITIES = (60, 70, 80, 95)


class Copies(NamedTuple):
    """A store, and which of its images are of one picture."""

    store: EmbeddingStore
    picture: np.ndarray  # (n_images,) number of the picture
    kind: np.ndarray  # (n_images,) "drawn", "saved again" or "thumbnail"


class SetLatents:
    """Latents that are written into the last dimensions of a store's vectors."""

    def __init__(self, d: int, n_latents: int) -> None:
        self.config = SAEConfig(d=d, n_latents=n_latents, k=0, activation="relu", source="test")
        self.n_latents = n_latents
        self.W_dec = torch.eye(n_latents)

    def encode(self, x: Tensor) -> Codes:
        """Those above 0, largest first."""
        found = x[:, -self.n_latents :].clamp(min=0).topk(self.n_latents, dim=1)
        return Codes(found.values, found.indices)

    def state_dict(self) -> dict[str, Tensor]:
        return {"n_latents": torch.tensor(self.n_latents)}


def draw_pictures(n: int, size: int = 64, first: int = 0) -> list[Image.Image]:
    """`n` different pictures of the built-in world."""
    return [Image.fromarray(draw(sample(first + number), size)[0]) for number in range(n)]


def save_copies(folder: Path, pictures: list[Image.Image]) -> tuple[list[str], list[str]]:
    """Three files a picture, and the kind of each: drawn, saved again as JPEG, a thumbnail."""
    folder.mkdir(parents=True)
    paths, kinds = [], []
    for number, picture in enumerate(pictures):
        quality = QUALITIES[number % len(QUALITIES)]
        small = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png", compress_level=1)
        picture.save(folder / f"{number}-again.jpg", quality=quality)
        small.save(folder / f"{number}-small.jpg", quality=90)
        paths += [f"{number}.png", f"{number}-again.jpg", f"{number}-small.jpg"]
        kinds += ["drawn", "saved again", "thumbnail"]
    return paths, kinds


def make_copies(folder: Path, n_pictures: int, n_latents: int = 4, domain: str = "photo") -> Copies:
    """`n_pictures` drawn pictures in three files each, and a store of them beside the folder.

    A vector is the picture's colours on a grid of 4 x 4, about their mean; behind it stand
    activations of latents on random sets of pictures, too small to change a cosine.
    """
    paths, kinds = save_copies(folder / domain, draw_pictures(n_pictures))
    files = [folder / domain / path for path in paths]
    vectors = np.stack([_colours(Image.open(file)) for file in files])
    picture = np.repeat(np.arange(n_pictures), 3)
    ids = [content_id(file.read_bytes()) for file in files]
    x = np.concatenate([vectors, set_activations(picture, n_latents)], 1)
    rows = [ImageRow(i, path, domain, "", 8, 8) for i, path in zip(ids, paths, strict=True)]
    return Copies(write_vectors(folder / "store", x, rows), picture, np.array(kinds))


def set_activations(picture: np.ndarray, n_latents: int, share: float = 0.1) -> np.ndarray:
    """(n_images, n_latents) activations, at most .001: each latent is active on all copies of a
    random set of pictures, more or less."""
    rng = np.random.default_rng(1)
    n_pictures = picture.max() + 1
    active = rng.random((n_pictures, n_latents)) < share
    acts = (active * rng.uniform(0.2, 0.9, active.shape))[picture]
    return acts * rng.uniform(0.9, 1.1, acts.shape) * 1e-3


def write_vectors(place: Path, x: np.ndarray, rows: list[ImageRow]) -> EmbeddingStore:
    """A store of one vector an image; the images lie beside it in a folder for each domain."""
    domains = sorted({row.domain for row in rows})
    plan = Plan(
        clip="tiny",
        clip_sha="0",
        layer="projected",
        tokens="cls",
        dtype="float32",
        d=x.shape[1],
        tokens_per_image=1,
        grid=[],
        shard_images=len(rows),
        n_files=len(rows),
        files="",
        roots={domain: f"../{domain}" for domain in domains},
    )
    writer = StoreWriter(place, plan)
    writer.write_shard(torch.from_numpy(x).float()[:, None], rows, [])
    writer.finish()
    return EmbeddingStore.open(place)


def jpeg_of(picture: Image.Image, quality: int) -> Image.Image:
    """The picture as a JPEG of this quality shows it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def _colours(image: Image.Image) -> np.ndarray:
    grid = np.asarray(image.convert("RGB").resize((4, 4), Image.Resampling.BOX), float).ravel()
    centred = grid - grid.mean()
    return centred / np.linalg.norm(centred)
