"""A stretch of the training order on the device: filled by one thread while another is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.data.store import EmbeddingStore
from sae.data.store_format import torch_dtype


class Window:
    """Room for `n_batches` of up to `n_rows` tokens, filled again and again.

    The tokens lie in the store's order, so that reading walks forward through the files; the order
    of the batches is an index into them. For a GPU both are copied from pinned memory on a stream
    of their own: neither the reader nor the training step waits for the other's copies.
    """

    def __init__(
        self, store: EmbeddingStore, n_batches: int, n_rows: int, device: torch.device
    ) -> None:
        n, d, dtype = n_batches * n_rows, store.info.d, torch_dtype(store.info.dtype)
        is_cuda = device.type == "cuda"
        self._store = store
        self._host = torch.empty(n, d, dtype=dtype, pin_memory=is_cuda)
        self._host_index = torch.empty(n, dtype=torch.int64, pin_memory=is_cuda)
        self._x = self._host.to(device)  # on the CPU the same tensor
        self._index = self._host_index.to(device)
        self._shape = (0, n_rows)
        self._stream: torch.cuda.Stream | None = None
        self._uploaded: torch.cuda.Event | None = None
        if is_cuda:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))
            for tensor in (self._x, self._index):
                tensor.record_stream(self._stream)  # else it is freed before its last upload ends

    def fill(self, tokens: NDArray[np.int64]) -> Window:
        """Read the store's `tokens` (batches, rows) in place of what was here."""
        if self._uploaded is not None:
            self._uploaded.synchronize()  # until then the copy still reads the pinned memory
        ascending = np.argsort(tokens, axis=None)
        self._store.read_tokens(tokens.ravel()[ascending], self._host[: tokens.size])
        self._host_index.numpy()[ascending] = np.arange(tokens.size)
        self._shape = (len(tokens), tokens.shape[1])
        if self._x is not self._host:
            self._upload(tokens.size)
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
