"""A stretch of the training order on the device: filled by one thread while another is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.data.store import EmbeddingStore
from sae.data.store_format import torch_dtype


class Stretch(NamedTuple):
    """What is read at once: numbers of a store's tokens."""

    tokens: NDArray[np.int64]  # (batches, rows)
    rest: NDArray[np.int64]
    """Of the next stretch the first tokens (fewer than rows), which lie among these."""


class Window:
    """Room for `n_batches` of up to `n_rows` tokens and the beginning of one more.

    The tokens lie in the store's order, so that reading walks forward through the files; the order
    of the batches is an index into them. For a GPU both are copied from pinned memory on a stream
    of their own: neither the reader nor the training step waits for the other's copies.
    """

    def __init__(
        self, store: EmbeddingStore, n_batches: int, n_rows: int, device: torch.device
    ) -> None:
        n, d, dtype = (n_batches + 1) * n_rows, store.info.d, torch_dtype(store.info.dtype)
        is_cuda = device.type == "cuda"
        self._store = store
        self._host = torch.empty(n, d, dtype=dtype, pin_memory=is_cuda)
        self._host_index = torch.empty(n, dtype=torch.int64, pin_memory=is_cuda)
        self._x = self._host.to(device)  # on the CPU the same tensor
        self._index = self._host_index.to(device)
        self._shape = (0, n_rows)
        self._rest = torch.empty(0, dtype=torch.int64)
        self._stream: torch.cuda.Stream | None = None
        self._uploaded: torch.cuda.Event | None = None
        if is_cuda:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))
            for tensor in (self._x, self._index):
                tensor.record_stream(self._stream)  # else it is freed before its last upload ends

    def fill(self, stretch: Stretch, before: Window | None = None) -> Window:
        """Read a stretch in place of what was here; `before` holds the stretch before it.

        What `before` has read of it is taken from there: embeddings may be dear to compute.
        """
        if self._uploaded is not None:
            self._uploaded.synchronize()  # until then the copy still reads the pinned memory
        tokens, rest = stretch
        wanted = np.concatenate([tokens.ravel(), rest])
        known = 0 if before is None else len(before._rest)
        if before is not None:
            torch.index_select(before._host, 0, before._rest, out=self._host[:known])
        ascending = np.argsort(wanted[known:])
        self._store.read_tokens(wanted[known:][ascending], self._host[known : len(wanted)])
        places = self._host_index.numpy()
        places[:known] = np.arange(known)
        places[known + ascending] = np.arange(known, len(wanted))
        self._rest = self._host_index[tokens.size : len(wanted)].clone()
        self._shape = (len(tokens), tokens.shape[1])
        if self._x is not self._host:
            self._upload(len(wanted))
        return self

    def batches(self) -> Iterator[Tensor]:
        """The batches (rows, d) of the last `fill`, each in memory of its own."""
        n_batches, n_rows = self._shape
        if self._stream is not None:
            torch.cuda.current_stream(self._x.device).wait_stream(self._stream)
        for index in self._index[: n_batches * n_rows].view(n_batches, n_rows):
            yield self._x.index_select(0, index)
        if self._stream is not None:  # the next upload stays behind these batches
            self._stream.wait_stream(torch.cuda.current_stream(self._x.device))

    def _upload(self, n: int) -> None:
        pairs = ((self._x, self._host), (self._index, self._host_index))
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            for there, here in pairs:
                there[:n].copy_(here[:n], non_blocking=self._stream is not None)
        if self._stream is not None:
            self._uploaded = self._stream.record_event()
