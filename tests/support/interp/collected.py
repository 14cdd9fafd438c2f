"""A small store and SAE whose activations can be worked out at once, for the tests of evidence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow
from sae.data.store_writer import Plan, StoreWriter
from sae.model.sae import SAE, SAEConfig

D = 24
DEAD, DENSE, RARE = 3, 5, 7
CLASSES = ("cat", "wheel", "")


def make_sae(k: int = 6) -> SAE:
    """Latent `i` reads dimension `i`: whole numbers in give the same whole numbers out, exactly."""
    model = SAE(SAEConfig(d=D, n_latents=D, k=k))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.W_enc.copy_(torch.eye(D))
        model.W_dec.copy_(torch.randn(D, D, generator=generator))
        model.normalise_decoder()
    return model


def embeddings(n_images: int, t: int = 1, seed: int = 0) -> Tensor:
    """(n_images, t, D) whole numbers, at most 6 above 0 a token, with many ties."""
    rng = np.random.default_rng(seed)
    fires = rng.random((n_images, t, D)) < 0.12
    fires[..., DENSE] = rng.random((n_images, t)) < 0.5
    fires[..., RARE] &= rng.random((n_images, t)) < 0.1
    fires[..., DEAD] = False
    fires &= np.cumsum(fires, -1) <= 6
    return torch.from_numpy(fires * rng.integers(1, 30, fires.shape)).float()


def image_rows(n_images: int) -> list[ImageRow]:
    """Two thirds sketches, the rest photos; three classes, one of them unnamed."""
    rows = []
    for number in range(n_images):
        domain = "photo" if number % 3 == 2 else "sketch"
        label = CLASSES[number % 7 % 3]
        identity = hashlib.sha256(str(number).encode()).hexdigest()
        rows.append(ImageRow(identity, f"{label or 'x'}/{number}.png", domain, label, 8, 8))
    return rows


def write_store(
    folder: Path, x: Tensor, rows: list[ImageRow], grid: list[int] | None = None
) -> EmbeddingStore:
    """Write embeddings (n, t, D) as a finished store of several shards."""
    shard_images = max(1, len(rows) // 3)
    plan = Plan(
        clip="tiny",
        clip_sha="0",
        layer="projected",
        tokens=("patch" if x.shape[1] == np.prod(grid) else "all") if grid else "cls",
        dtype="float16",
        d=D,
        tokens_per_image=x.shape[1],
        grid=grid or [],
        shard_images=shard_images,
        n_files=len(rows),
        files="",
        roots={"sketch": "../sketch", "photo": "../photo"},
    )
    writer = StoreWriter(folder, plan)
    for shard in range(plan.n_shards):
        span = plan.span(shard)
        writer.write_shard(x[span.start : span.stop], rows[span.start : span.stop], [])
    writer.finish()
    return EmbeddingStore.open(folder)


def make_store(
    folder: Path, n_images: int, t: int = 1, grid: list[int] | None = None
) -> EmbeddingStore:
    """A store of `n_images` drawn at random."""
    return write_store(folder, embeddings(n_images, t), image_rows(n_images), grid)


def image_acts_at_once(store: EmbeddingStore) -> NDArray[np.float32]:
    """(n_images, D): what every latent of `make_sae` says of every image."""
    x = store.read(np.arange(store.info.n_images)).float()
    return x.amax(1).numpy()
