"""One progress bar for all long work: rich on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class Bar(Protocol):
    """A `Progress` that may be given a text to show in place of the rate."""

    def __call__(self, done: int, total: int, text: str = "", /) -> None: ...


@contextmanager
def bar(label: str, unit: str = "images") -> Iterator[Bar]:
    """Show `label` with done/total, rate and ETA; `unit` is what is counted."""
    yield from _rich_bar(label, unit) if sys.stderr.isatty() else _plain_lines(label, unit)


def _rich_bar(label: str, unit: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", style="cyan"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with RichProgress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=None, rate="")

        def update(done: int, total: int, text: str = "") -> None:
            rate = f"{done / max(time.monotonic() - started, 1e-6):,.0f} {unit}/s"
            progress.update(task, completed=done, total=total, rate=text or rate)

        yield update


def _plain_lines(label: str, unit: str) -> Iterator[Bar]:
    started = time.monotonic()
    shown = -1

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if tenth == shown:
            return
        shown = tenth
        seconds = time.monotonic() - started
        line = f"{label}: {done}/{total} {unit}, {seconds:.1f} s" + (f", {text}" if text else "")
        print(line, file=sys.stderr, flush=True)

    yield update
