"""Ctrl-C, and SIGTERM like it, at a moment that suits: work ends its step and saves first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers of clusters and `torchrun` send before they kill."""
_terminated = threading.Event()


def was_terminated() -> bool:
    """Whether it was SIGTERM that ended the work under `end_on_sigterm`."""
    return _terminated.is_set()


@contextmanager
def end_on_sigterm(act: Callable[[], object] | None = None) -> Iterator[None]:
    """SIGTERM does what ctrl-C does: `KeyboardInterrupt`, or `act` once and that the next time.

    Outside the main thread, and where it is ignored, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = _active(signal.SIGTERM) if is_main else None
    if before is None:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        _terminated.set()
        if act is None:
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, before)
        act()

    if act is None:
        _terminated.clear()
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def catch_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a signal to stop has come since.

    The first signal is only noted; a second one acts at once, as it would have. Outside the main
    thread, where Python gives no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()
    before = {number: handler for number in SIGNALS if (handler := _active(number)) is not None}

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        if number == signal.SIGTERM:
            _terminated.set()
        _restore(before)

    for number in before:
        signal.signal(number, note)
    try:
        yield came.is_set
    finally:
        _restore(before)


def _active(number: signal.Signals) -> signal._HANDLER:
    """What handles a signal; None where it is ignored, as by a job in the background."""
    handler = signal.getsignal(number)
    return None if handler == signal.SIG_IGN else handler


def _restore(handlers: Mapping[signal.Signals, signal._HANDLER]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
