"""Candidates -> decoded, resized images, in worker processes.

Decoding and Pillow's part of the preprocessing run in a DataLoader's workers, which give order,
prefetching and the notice of a worker's death. They send uint8 arrays, not tensors: a tensor would
travel through shared memory, of which a container often has only 64 MB.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from sae.clip.model import Preprocess
from sae.core.errors import UserError
from sae.data.images import MAX_PIXELS, BadImage, read_image, read_size
from sae.data.sources.folders import ImageFile

_LOOK = 1.0
"""Seconds between two looks of a worker at whether its parent lives."""


class Loaded(NamedTuple):
    """A candidate that is an image."""

    candidate: int  # its place in the list
    image_id: str
    pixels: NDArray[np.uint8]  # (s, s, 3); empty where only its header was read
    width: int  # of the upright original
    height: int


class Refused(NamedTuple):
    """A candidate that is none."""

    candidate: int
    reason: str


Outcome = Loaded | Refused


class ImageLoader:
    """Files, and the processes that decode them: for one stream, or, `lasting`, for all of them.

    Without `preprocess` only the images' headers are read.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        preprocess: Preprocess | None,
        workers: int,
        max_pixels: int = MAX_PIXELS,
        lasting: bool = False,
    ) -> None:
        self._batches = _Batches()
        self._loader: DataLoader[Any] = DataLoader(
            _Images(files, preprocess, max_pixels),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=list,
            worker_init_fn=_ignore_ctrl_c if lasting else _end_with_parent,
            persistent_workers=lasting and workers > 0,
        )

    def load(self, batches: Iterable[list[int]]) -> Iterator[list[Outcome]]:
        """What became of each candidate, batch by batch, in the order of `batches` (places in
        `files`). One such stream at a time.

        Memory is bounded: two batches a worker are on the way. Use it under `explain_dead_workers`.
        """
        self._batches.now = batches
        yield from self._loader


class _Batches:
    """The batches of the stream that was asked for last."""

    now: Iterable[list[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.now)


@contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Raise `UserError` when a worker dies while the block runs, whatever is just being done.

    torch tells it by a `RuntimeError` from a signal handler: it can strike between any two steps,
    so the block is all that runs while there are workers, not the loader alone.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise UserError(
            "a decoding process died (out of memory?); run the same command again to go on, "
            "with fewer --workers"
        ) from None


def default_workers(n_files: int) -> int:
    """One process a core, 8 at most; none for a handful of images, which are done sooner."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8, n_files // 64)


def _end_with_parent(worker: int) -> None:
    """Let a worker end when its parent was killed: it would wait for ever with pictures that
    nobody takes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def look() -> None:
        while os.getppid() == parent.pid:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _ignore_ctrl_c(worker: int) -> None:
    """The parent goes on for a while, to save what it has, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(worker)


class _Images(Dataset[Outcome]):
    """What the workers do."""

    def __init__(
        self, files: Sequence[ImageFile], preprocess: Preprocess | None, max_pixels: int
    ) -> None:
        self._max_pixels = max_pixels
        self._files = files
        self._preprocess = preprocess

    def __getitem__(self, candidate: int) -> Outcome:
        if self._preprocess is None:
            return self._listed(candidate)
        try:
            image_id, image = read_image(self._files[candidate].path, self._max_pixels)
        except BadImage as error:
            return Refused(candidate, error.reason)
        return Loaded(candidate, image_id, self._preprocess.resize(image), *image.size)

    def _listed(self, candidate: int) -> Outcome:
        try:
            image_id, size = read_size(self._files[candidate].path, self._max_pixels)
        except BadImage as error:
            return Refused(candidate, error.reason)
        return Loaded(candidate, image_id, np.empty((0, 0, 3), np.uint8), *size)
