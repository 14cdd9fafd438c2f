"""What is not to be on the screen: a library's warnings, and what all but one process repeat."""

from __future__ import annotations

import io
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

from sae.core.errors import BUG, FAILURES, Notice


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


def is_first_process() -> bool:
    """Whether it speaks for all that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def run_as_rank(run: Callable[[str], int], module: str) -> int:
    """Call `run` with the program's name; its exit code comes back.

    Of several processes that `torchrun -m module` started only the first one speaks: the others
    would say the same. What failed in one of them is shown all the same. Behind "--" torchrun does
    not look for options of its own, which --run or --log could be short for.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n == 1:
        return run(module)
    if is_first_process():
        return run(f"torchrun --nproc-per-node {n} -m -- {module}")
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = run(module)
    if code in (BUG, FAILURES):
        print(said.getvalue(), end="", file=sys.stderr, flush=True)
    return code
