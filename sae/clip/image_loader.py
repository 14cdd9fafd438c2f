"""Candidates -> decoded, resized images, in worker processes that may hang or die.

A decoder that hangs or takes its process down costs that one image: it is refused with the reason,
and a new process goes on with the others. What comes back are uint8 arrays, which travel through
pipes: shared memory is often only 64 MB in a container.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from sae.clip.model import Preprocess
from sae.core.errors import UserError
from sae.data.images import MAX_PIXELS, BadImage, read_image, read_size
from sae.data.sources.folders import ImageFile

DEADLINE = 30.0
"""Seconds for one image. A 50-megapixel JPEG takes about one."""
_GRACE = 5.0
"""Seconds more for a decoder that does not listen: then its process is killed."""
_PIECE = 16
"""Images that a worker decodes before it hands them over."""
_AHEAD = 3
"""Pieces for each worker that are on the way at once."""
_TOO_LONG = f"it took its decoder longer than {DEADLINE:.0f} s"
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
_Future = ProcessFuture[list[Outcome]]


class ImageLoader:
    """Files, and the processes that decode them: for one stream, or, `lasting`, for all of them.

    Without `preprocess` only the images' headers are read. Without `workers` this process decodes:
    then the deadline holds in the main thread, for decoders that can be interrupted.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        preprocess: Preprocess | None,
        workers: int,
        max_pixels: int = MAX_PIXELS,
        lasting: bool = False,
    ) -> None:
        self._images = _Images(files, preprocess, max_pixels)
        self._workers, self._lasting = workers, lasting
        self._pool: ProcessPool | None = None

    def load(self, batches: Iterable[list[int]]) -> Iterator[list[Outcome]]:
        """What became of each candidate, batch by batch, in the order of `batches` (places in
        `files`, at least one in each). One such stream at a time.

        Memory is bounded: `_AHEAD` pieces of a batch are on the way for each worker. Raises
        `UserError` when no process can be started.
        """
        if self._workers == 0:
            yield from map(self._images.read, batches)
            return
        sizes: deque[int] = deque()
        outcomes: list[Outcome] = []
        try:
            for part in self._load(_cut(batches, sizes)):
                outcomes += part
                if len(outcomes) == sizes[0]:
                    sizes.popleft()
                    yield outcomes
                    outcomes = []
        finally:
            if not self._lasting and self._pool is not None:
                self._end_pool()
                self._pool = None

    def _load(self, pieces: Iterable[list[int]]) -> Iterator[list[Outcome]]:
        waiting: deque[tuple[list[int], _Future]] = deque()
        try:
            for piece in pieces:
                waiting.append((piece, self._ask(piece)))
                if len(waiting) > _AHEAD * self._workers:
                    yield self._wait(*waiting.popleft())
            while waiting:
                yield self._wait(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _ask(self, piece: list[int]) -> _Future:
        if self._pool is None:
            self._pool = ProcessPool(self._workers, initializer=_begin, initargs=(self._images,))
            self._end_pool = weakref.finalize(self, _end, self._pool)  # which runs once
        timeout = 2 * DEADLINE if len(piece) > 1 else DEADLINE + _GRACE
        try:
            return self._pool.schedule(_read, args=(piece,), timeout=timeout)
        except RuntimeError:  # what pebble says of a pool that is no more
            raise _no_process() from None

    def _wait(self, piece: list[int], future: _Future) -> list[Outcome]:
        """What became of a piece; where its process hung or died, of each of its images alone."""
        try:
            return future.result()
        except BrokenProcessPool:
            raise _no_process() from None
        except (TimeoutError, ProcessExpired) as error:
            if len(piece) > 1:
                alone = [([candidate], self._ask([candidate])) for candidate in piece]
                return [outcome for one in alone for outcome in self._wait(*one)]
            hung = isinstance(error, TimeoutError)
            return [Refused(piece[0], _TOO_LONG if hung else "its decoder ended the process")]


def default_workers(n_files: int, n_here: int = 1) -> int:
    """One process a core, 8 at most; none for a handful of images, which are done sooner.

    The cores are shared by `n_here` processes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(max(1, (cores or 1) // n_here), 8, n_files // 64)


class _Images:
    """What the workers do."""

    def __init__(
        self, files: Sequence[ImageFile], preprocess: Preprocess | None, max_pixels: int
    ) -> None:
        self._max_pixels = max_pixels
        self._files = files
        self._preprocess = preprocess

    def read(self, candidates: Sequence[int]) -> list[Outcome]:
        """What each of these is."""
        return [self._read(candidate) for candidate in candidates]

    def _read(self, candidate: int) -> Outcome:
        path = self._files[candidate].path
        try:
            with _deadline():
                if self._preprocess is None:
                    image_id, size = read_size(path, self._max_pixels)
                    return Loaded(candidate, image_id, np.empty((0, 0, 3), np.uint8), *size)
                image_id, image = read_image(path, self._max_pixels)
                return Loaded(candidate, image_id, self._preprocess.resize(image), *image.size)
        except BadImage as error:
            return Refused(candidate, error.reason)


@contextmanager
def _deadline() -> Iterator[None]:
    """Raise `BadImage` in the block when it takes longer than `DEADLINE`; main thread alone."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise BadImage(_TOO_LONG)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _cut(batches: Iterable[list[int]], sizes: deque[int]) -> Iterator[list[int]]:
    """Batches in pieces; the size of each batch goes to `sizes`."""
    for batch in batches:
        sizes.append(len(batch))
        for start in range(0, len(batch), _PIECE):
            yield batch[start : start + _PIECE]


_images: _Images
"""In a worker: what it reads."""


def _begin(images: _Images) -> None:
    """In a worker, once. It ends when its parent was killed: it would wait for ever else."""
    global _images
    _images = images
    parent = multiprocessing.parent_process()
    assert parent is not None

    def look() -> None:
        while os.getppid() == parent.pid:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _read(piece: list[int]) -> list[Outcome]:
    return _images.read(piece)


def _end(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()


def _no_process() -> UserError:
    return UserError(
        "no decoding process can be started (out of memory?); run the same command again to go on, "
        "with fewer --workers"
    )
