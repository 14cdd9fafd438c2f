"""Data whose truth is known: sums of a few of many planted directions, in a cone as CLIP's.

The recipe: 2,000 random unit directions, 12 of them active in a token on average, some in half of
the tokens and most in less than a hundredth; lognormal sizes; a little noise; a mean that all
tokens share; unit length at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.core.files import sha256_hex
from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow
from sae.data.store_writer import Plan, StoreWriter
from sae.evaluation.dictionary import TWIN, nearest_cosine, unit_rows

D = 512
N_DIRECTIONS = 2000
N_ACTIVE = 12.0
"""Directions in a token, on average."""
NOISE = 0.15
"""Length of a token's noise; that of its directions' sum is 1 on average (root mean square)."""
MEAN = 0.8
"""Length of the common mean, in the same unit."""
_SIZE_SPREAD = 0.5
_ZIPF = 0.8
_MOST_OFTEN = 0.5, 0.6  # before and after the rates are brought to N_ACTIVE
_CHUNK = 5000

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Recovery:
    """How much of a planted dictionary is found. Cosines with the nearest live decoder row."""

    mean: float
    """Mean over the planted directions."""
    weighted: float
    """The same, weighted by how often each direction is active in the data."""
    found: float
    """Share of the planted directions with a cosine above .9."""


class Planted(NamedTuple):
    """Tokens and the truth behind them."""

    x: Tensor
    """(n, d) unit rows to train on."""
    held_out: Tensor
    """(n_held_out, d) more of them."""
    directions: Tensor
    """(n_directions, d) unit rows."""
    rates: Tensor
    """(n_directions,) share of the tokens in which each direction is active, falling."""


def planted(
    n: int = 100_000,
    n_held_out: int = 10_000,
    d: int = D,
    n_directions: int = N_DIRECTIONS,
    n_active: float = N_ACTIVE,
    seed: int = 0,
) -> Planted:
    """Draw the directions and `n + n_held_out` tokens; another seed shares none of them."""
    random = np.random.default_rng(seed)
    directions = _unit_rows(random.standard_normal((n_directions, d)).astype(np.float32))
    rates = _rates(n_directions, n_active)
    mean = _unit_rows(random.standard_normal((1, d)).astype(np.float32)) * np.float32(MEAN)
    x = np.empty((n + n_held_out, d), np.float32)
    for first in range(0, len(x), _CHUNK):
        part = x[first : first + _CHUNK]
        part[:] = _tokens(random, len(part), directions, rates) + mean
    x = _unit_rows(x)
    truth = torch.from_numpy(directions), torch.from_numpy(rates)
    return Planted(torch.from_numpy(x[:n]), torch.from_numpy(x[n:]), *truth)


def write_store(path: Path, x: Tensor) -> EmbeddingStore:
    """The tokens `x` (n, d) as a store that `sae train` reads: one an image, of no image."""
    n, d = x.shape
    plan = Plan(
        clip="planted",
        clip_sha="0" * 16,
        layer="projected",
        tokens="cls",
        dtype="float32",
        d=d,
        tokens_per_image=1,
        grid=[],
        shard_images=1 << 16,
        n_files=n,
        files=sha256_hex(x.numpy().tobytes()),
        roots={"planted": "."},
    )
    writer = StoreWriter(path, plan)
    for shard in range(plan.n_shards):
        span = plan.span(shard)
        rows = [
            ImageRow(sha256_hex(f"token {i}".encode()), f"{i}.png", "planted", "", 1, 1)
            for i in span
        ]
        writer.write_shard(x[span.start : span.stop, None], rows, [])
    writer.finish()
    return EmbeddingStore.open(path)


def _rates(n: int, n_active: float) -> NDArray[np.float64]:
    """Zipf's law, bounded: (n,), their sum about `n_active`."""
    before, after = _MOST_OFTEN
    rates = 1.0 / np.arange(1, n + 1) ** _ZIPF
    rates = np.minimum(rates / rates.sum() * n_active, before)
    return np.minimum(rates * (n_active / rates.sum()), after)


def _tokens(
    random: np.random.Generator, n: int, directions: Array, rates: NDArray[np.float64]
) -> Array:
    """(n, d) about 0."""
    shape = n, len(directions)
    sizes = (random.random(shape, dtype=np.float32) < rates).astype(np.float32)
    sizes *= np.exp(_SIZE_SPREAD * random.standard_normal(shape, dtype=np.float32))
    sums = sizes @ directions  # (n, d)
    sums /= np.sqrt((sums**2).sum(1).mean())
    noise: Array = random.standard_normal(sums.shape, dtype=np.float32)
    return sums + noise * np.float32(NOISE / np.sqrt(sums.shape[1]))


def _unit_rows(x: Array) -> Array:
    rows: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return rows


def recovery(
    W_dec: Tensor, directions: Tensor, live: Tensor | None = None, weights: Tensor | None = None
) -> Recovery:
    """How well the live rows of `W_dec` (n_latents, d) give the planted `directions` (m, d) back.

    `live` (n_latents,) is a mask, None: all; `weights` (m,) are how often each direction is active,
    None: equally. Without a live row every cosine is 0.
    """
    rows = unit_rows(W_dec, live)
    planted = F.normalize(directions.to(rows), dim=1)
    cosine = nearest_cosine(planted, rows) if len(rows) else planted.new_zeros(len(planted))
    weights = torch.ones_like(cosine) if weights is None else weights.to(cosine)
    return Recovery(
        mean=float(cosine.mean()),
        weighted=float((cosine * weights).sum() / weights.sum()),
        found=float((cosine > TWIN).float().mean()),
    )
