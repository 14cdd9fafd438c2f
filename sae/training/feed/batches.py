"""Training tokens from a store: in random order, at any size; and the values to start from."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.data.store_format import torch_dtype
from sae.training.feed.buffer import Stretch, Window
from sae.training.feed.prefetch import prefetch
from sae.training.feed.shuffle import Order

IN_MEMORY_BYTES = 4 << 30
"""Of the CPU's memory that the training part may fill; a larger one is read again each pass."""
BLOCK_TOKENS = 1 << 7
"""Neighbours in the store that are read together: 100 to 200 kB."""
BUFFER_TOKENS = 1 << 18
"""Tokens mixed with one another: 2,048 random blocks, so that a store sorted by class is mixed."""
SAMPLE_TOKENS = 1 << 16
"""Tokens from which mean, scale and median are estimated."""

SAMPLE_IMAGES = 1 << 10
"""Images that go through CLIP for that, before the training's own."""

Rows = NDArray[np.int64]


def batches(
    store: EmbeddingStore,
    rows: Rows,
    batch_size: int,
    seed: int,
    device: torch.device,
    in_memory_bytes: int | None = None,
    n_skipped: int = 0,
    part: tuple[int, int] = (0, 1),
    buffer_tokens: int = 0,
    n_in_all: int | None = None,
) -> Generator[Tensor, None, None]:
    """Batches (batch_size, d) in the stored type: pass after pass, each in a new order.

    All tokens of the images `rows` (ascending) come once a pass. The first `n_skipped` batches are
    left out without being read, and nothing is read for batches after the first `n_in_all`; without
    it they are endless. `part` is (rank, n_ranks): a rank gets its rows of every batch, cut
    as by `torch.tensor_split`.

    A training part of up to `in_memory_bytes` is held on `device`, a larger one is read window by
    window while the one before is used. The order does not depend on which of the two happens, so
    the default, which follows the free memory, changes no result. Close the stream when done: a
    thread may be reading ahead.

    With `buffer_tokens`, for a store whose embeddings are computed, so many tokens are held at
    most: all, if they are no more; else windows of whole images, drawn by chance, of half as many,
    one of which is filled while the other is used. This is another order than without.
    """
    t = store.info.tokens_per_image
    order = _order(store, rows, seed, buffer_tokens)
    stretches = _stretches(order, batch_size, n_skipped, part, n_in_all)
    n_bytes = order.n_tokens * store.info.d * torch_dtype(store.info.dtype).itemsize
    if in_memory_bytes is None:
        in_memory_bytes = room_for_data(device, part[1])
    if buffer_tokens:
        in_memory_bytes = n_bytes if order.n_tokens <= buffer_tokens else 0
    if n_bytes <= in_memory_bytes:
        yield from _resident(_read_all(store, rows, device), stretches)
    else:
        n_batches = -(-min(order.n_window, order.n_tokens) // batch_size)
        n_rows = -(-batch_size // part[1])
        windows = [Window(store, n_batches, n_rows, device) for _ in range(2)]
        numbers = (Stretch(*(_token_numbers(n, rows, t) for n in both)) for both in stretches)
        yield from _streamed(windows, numbers)


def cls_masks(
    store: EmbeddingStore,
    rows: Rows,
    batch_size: int,
    seed: int,
    device: torch.device,
    n_skipped: int = 0,
    part: tuple[int, int] = (0, 1),
    buffer_tokens: int = 0,
) -> Iterator[Tensor]:
    """Which tokens of each of `batches` are CLS tokens: endless masks (batch_size,).

    Raises `UserError` where the store does not hold all tokens, CLS first.
    """
    t, grid = store.info.tokens_per_image, store.info.grid
    if store.info.tokens != "all" or (grid and math.prod(grid) == t):
        raise UserError(
            f"cls_weight needs a store of all tokens, CLS among them; {store.path} has tokens "
            f"{store.info.tokens!r}: run `sae embed --tokens all`, or leave cls_weight at 1"
        )
    order = _order(store, rows, seed, buffer_tokens)
    stretches = _stretches(order, batch_size, n_skipped, part)
    return (mask for n, _ in stretches for mask in torch.from_numpy(n % t == 0).to(device))


def _order(store: EmbeddingStore, rows: Rows, seed: int, buffer_tokens: int) -> Order:
    t = store.info.tokens_per_image
    if not buffer_tokens:
        return Order(len(rows) * t, seed, BLOCK_TOKENS, BUFFER_TOKENS)
    return Order(len(rows) * t, seed, t, max(1, buffer_tokens // 2 // t) * t)


def sample(store: EmbeddingStore, rows: Rows, seed: int, n_tokens: int = SAMPLE_TOKENS) -> Tensor:
    """Tokens (n, d) of random images among `rows`: at least `n_tokens`, or all there are.

    Of a store whose embeddings are computed, of a sixteenth of the images (256 to `SAMPLE_IMAGES`).
    """
    n_images = min(-(-n_tokens // store.info.tokens_per_image), len(rows))
    if store.info.on_the_fly:
        n_images = min(n_images, SAMPLE_IMAGES, max(256, len(rows) // 16))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rows), generator=generator)[:n_images].sort().values.numpy()
    return _read_all(store, rows[chosen])


def _read_all(store: EmbeddingStore, rows: Rows, device: torch.device | str = "cpu") -> Tensor:
    """All tokens (n, d) of ascending `rows`; on the way to a GPU no more than a window is held."""
    t, d, dtype = store.info.tokens_per_image, store.info.d, torch_dtype(store.info.dtype)
    x = torch.empty(len(rows) * t, d, dtype=dtype, device=device)
    for first in range(0, len(x), BUFFER_TOKENS):
        piece = x[first : first + BUFFER_TOKENS]
        host = torch.empty_like(piece, device="cpu") if x.device.type != "cpu" else piece
        store.read_tokens(_token_numbers(np.arange(first, first + len(piece)), rows, t), host)
        if host is not piece:
            piece.copy_(host)
    return x


def _token_numbers(tokens: NDArray[np.int64], rows: Rows, t: int) -> NDArray[np.int64]:
    """The store's numbers of the training part's tokens, which count the images `rows` only."""
    return rows[tokens // t] * t + tokens % t


def _stretches(
    order: Order,
    batch_size: int,
    n_skipped: int,
    part: tuple[int, int],
    n_in_all: int | None = None,
) -> Iterator[Stretch]:
    """The order cut into whole batches, window by window, up to batch `n_in_all`.

    A batch across the border of two windows belongs to the second.
    """
    rank, n_ranks = part
    own = np.array_split(np.arange(batch_size), n_ranks)[rank]
    first = n_skipped
    end = first * batch_size
    while n_in_all is None or first < n_in_all:
        end = order.window_end(end)
        stop = end // batch_size if n_in_all is None else min(end // batch_size, n_in_all)
        if stop == first:  # less than a batch so far
            continue
        tokens = order.between(first * batch_size, stop * batch_size).reshape(-1, batch_size)
        rest = tokens[0, :0]
        if stop != n_in_all and stop * batch_size < end:
            rest = order.between(stop * batch_size, end)
        yield Stretch(tokens[:, own], rest[own[own < len(rest)]])
        first = stop


def room_for_data(device: torch.device, n_ranks: int) -> int:
    """What of the device's memory the data may take: half of what is free now.

    On a CPU at most `IN_MEMORY_BYTES` for all ranks: the system keeps what is read again anyway.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        n_free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, AttributeError):  # neither macOS nor Windows tells
        n_free = IN_MEMORY_BYTES
    return min(n_free // 2, IN_MEMORY_BYTES) // n_ranks


def _resident(x: Tensor, stretches: Iterator[Stretch]) -> Iterator[Tensor]:
    for tokens, _ in stretches:
        index = torch.from_numpy(np.ascontiguousarray(tokens))
        if x.device.type == "cuda":
            # From pageable memory the copy would first wait for all that the GPU has to do.
            index = index.pin_memory()
        for batch in index.to(x.device, non_blocking=True):
            yield x.index_select(0, batch)


def _streamed(windows: list[Window], stretches: Iterator[Stretch]) -> Iterator[Tensor]:
    """Batches of one window while a thread fills the other."""

    def filled() -> Iterator[Window]:
        before = None
        for window, stretch in zip(cycle(windows), stretches, strict=False):
            yield window.fill(stretch, before)
            before = window

    for window in prefetch(filled()):
        yield from window.batches()
