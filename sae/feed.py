"""Training tokens from a store: in random order, at any size; and the values to start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.errors import UserError
from sae.store import EmbeddingStore

IN_MEMORY_BYTES = 2 << 30
"""Training parts up to this size are read once and kept."""
BLOCK_TOKENS = 1 << 10
"""Tokens read in one piece from a larger store."""
BUFFER_TOKENS = 1 << 18
"""Tokens mixed with one another: 256 random blocks at a time."""
SAMPLE_TOKENS = 1 << 16
"""Tokens from which mean, scale and median are estimated."""
CHUNK_TOKENS = 1 << 13

Rows = NDArray[np.int64]


class Start(NamedTuple):
    """Location and size of the data."""

    mean: Tensor
    """(d,), of raw embeddings."""
    scale: Tensor
    """(), root of the mean square of (x - mean), per dimension."""
    median: Tensor
    """(d,), geometric median of (x - mean) / scale."""


def batches(
    store: EmbeddingStore,
    rows: Rows,
    batch_size: int,
    seed: int,
    device: torch.device,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> Iterator[Tensor]:
    """Endless batches (batch_size, d) in the stored type: pass after pass, each in a new order.

    All tokens of the images `rows` come once a pass. A training part of up to `in_memory_bytes` is
    held on `device` and shuffled as a whole; a larger one is read in contiguous blocks of random
    order, and shuffled within a buffer of many blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    n_tokens = len(rows) * store.info.tokens_per_image
    if n_tokens * store.info.d * _itemsize(store) <= in_memory_bytes:
        chunks = _shuffled_in_memory(_read_all(store, rows).to(device), generator)
    else:
        chunks = _shuffled_blocks(store, rows, generator)
    for batch in _of_equal_size(chunks, batch_size):
        yield batch.to(device)


def sample(store: EmbeddingStore, rows: Rows, seed: int, n_tokens: int = SAMPLE_TOKENS) -> Tensor:
    """Tokens (n, d) of random images among `rows`: at least `n_tokens`, or all there are."""
    n_images = min(-(-n_tokens // store.info.tokens_per_image), len(rows))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rows), generator=generator)[:n_images].sort().values.numpy()
    return _read_all(store, rows[chosen])


def start_values(x: Tensor) -> Start:
    """Mean, scale and geometric median of tokens (n, d), in float32; read in chunks.

    Raises `UserError` when values are not finite or all tokens are equal.
    """
    n, d = x.shape
    mean = torch.zeros(d, dtype=torch.float64)
    for part in torch.split(x, CHUNK_TOKENS):
        mean += part.double().sum(0) / n
    square = torch.zeros((), dtype=torch.float64)
    for part in torch.split(x, CHUNK_TOKENS):
        square += (part.double() - mean).square().sum()
    scale = (square / (n * d)).sqrt()
    if not bool(scale.isfinite()):
        raise UserError("the store holds values that are not finite; run `sae embed` again")
    if float(scale) <= 1e-6 * float(mean.abs().max()):
        raise UserError(f"all {n} embeddings are equal: there is nothing to learn from this store")
    median = _geometric_median(x, mean, scale)
    return Start(mean.float(), scale.float(), median.float())


def _geometric_median(x: Tensor, mean: Tensor, scale: Tensor, n_iterations: int = 100) -> Tensor:
    """The point with the least sum of distances to (x - mean) / scale, by Weiszfeld's iteration."""
    median = torch.zeros_like(mean)
    for _ in range(n_iterations):
        total, weight = torch.zeros_like(mean), torch.zeros_like(scale)
        for part in torch.split(x, CHUNK_TOKENS):
            z = ((part - mean) / scale).float()  # (c, d)
            # The bound keeps a data point that is the median from taking an infinite weight.
            w = 1 / (z - median.float()).norm(dim=1).clamp(min=1e-6)  # (c,)
            total, weight = total + w @ z, weight + w.sum()
        previous, median = median, total / weight
        if float((median - previous).norm()) <= 1e-5 * len(mean) ** 0.5:
            break
    return median


def _itemsize(store: EmbeddingStore) -> int:
    return torch.empty(0, dtype=getattr(torch, store.info.dtype)).element_size()


def _read_all(store: EmbeddingStore, rows: Rows) -> Tensor:
    return torch.cat([batch.x.flatten(0, 1) for batch in store.batches(rows=rows)])  # (n, d)


def _shuffled_in_memory(x: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for part in torch.split(order, BUFFER_TOKENS):
            yield x[part]


def _shuffled_blocks(
    store: EmbeddingStore, rows: Rows, generator: torch.Generator
) -> Iterator[Tensor]:
    block_images = -(-BLOCK_TOKENS // store.info.tokens_per_image)
    n_blocks = -(-len(rows) // block_images)
    while True:
        buffer: list[Tensor] = []
        for block in torch.randperm(n_blocks, generator=generator).tolist():
            part = rows[block * block_images : (block + 1) * block_images]
            buffer.append(store.read(part).flatten(0, 1))
            if sum(map(len, buffer)) >= BUFFER_TOKENS:
                yield _shuffled(buffer, generator)
                buffer = []
        if buffer:
            yield _shuffled(buffer, generator)


def _shuffled(buffer: list[Tensor], generator: torch.Generator) -> Tensor:
    x = torch.cat(buffer)
    return x[torch.randperm(len(x), generator=generator)]


def _of_equal_size(chunks: Iterator[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Cut a stream of chunks (any, d) into batches (batch_size, d), across the chunks' borders."""
    rest = next(chunks)
    while True:
        while len(rest) < batch_size:
            rest = torch.cat([rest, next(chunks)])
        n_full = len(rest) // batch_size
        for number in range(n_full):
            yield rest[number * batch_size : (number + 1) * batch_size]
        rest = rest[n_full * batch_size :]
