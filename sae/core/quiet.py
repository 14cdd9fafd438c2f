"""A library that warns -> no word of it on the screen, in whichever threads it is at work."""

from __future__ import annotations

import threading
import warnings

from sae.core.errors import Notice


class _Quiet:
    """Enter it with `with`, in any thread; it is on until the last thread has left it.

    `warnings.catch_warnings` puts back what it found: of two threads that overlap, the second to
    leave puts back what the first one had set, for the rest of the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_inside:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
                warnings.simplefilter("default", Notice)
            self._n_inside += 1

    def __exit__(self, *_raised: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                self._before.__exit__(None, None, None)


quiet = _Quiet()
"""Warnings of libraries are not shown inside it; our own (`Notice`) are."""
