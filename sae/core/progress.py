"""One progress bar for all long work: rich on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

BAR, LABEL = 30, 22
"""Letters of a bar, and of the label where there is room: bars below each other then line up."""
EVERY = 2.0
"""Seconds between two lines where there is no terminal, at least."""
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class Bar(Protocol):
    """A `Progress` that may be given a text to show in place of the rate."""

    def __call__(self, done: int, total: int, text: str = "", /) -> None: ...


@contextmanager
def bar(label: str, unit: str = "images", *, brief: bool = False) -> Iterator[Bar]:
    """Show `label` with done/total, rate and ETA; `unit` is what is counted.

    `brief`: mostly over at once, and then nothing is left of it.
    """
    show = _rich_bar if sys.stderr.isatty() else _plain_lines
    yield from show(label, unit, brief)


def _rich_bar(label: str, unit: str, brief: bool) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    def columns(*shown: str) -> list[ProgressColumn]:
        return [made[name] for name in made if name in shown]

    made: dict[str, ProgressColumn] = {
        "label": TextColumn("{task.description}"),
        "bar": BarColumn(bar_width=BAR),
        "count": MofNCompleteColumn(),
        "text": TextColumn("{task.fields[rate]}", style="cyan"),
        "elapsed": TimeElapsedColumn(),
        "eta": TextColumn("eta"),
        "remaining": TimeRemainingColumn(),
    }
    started = time.monotonic()
    with RichProgress(
        *columns("label", "bar", "elapsed"), console=Console(stderr=True), transient=brief
    ) as progress:
        task = progress.add_task(label, total=None, rate="")

        def update(done: int, total: int, text: str = "") -> None:
            text = text or f"{done / max(time.monotonic() - started, 1e-6):,.0f} {unit}/s"
            fitted = fit(progress.console.width, label, total, text)
            progress.columns = tuple(columns(*fitted.shown))
            progress.update(
                task, completed=done, total=total, rate=fitted.text, description=fitted.label
            )

        yield update


class Fitted(NamedTuple):
    """What of a bar there is room for."""

    shown: tuple[str, ...]
    """Names of columns."""
    label: str
    text: str


def fit(width: int, label: str, total: int, text: str) -> Fitted:
    """What fits into `width` letters: label, count, time left and time gone come before the text,
    of which the last words go first, and that before the bar and the blanks behind the label.
    """
    shown, left = ["label"], width - len(label)
    for name, n in (("count", 2 * len(str(total)) + 1), ("remaining", 11), ("elapsed", 7)):
        if n < left:  # one more for the gap
            shown += [name, "eta"] if name == "remaining" else [name]
            left -= n + 1
    words = text.split()
    while words and (len(" ".join(words)) >= left or _is_name(words[-1])):
        words.pop()
    if words:
        shown.append("text")
        left -= len(" ".join(words)) + 1
    if left > BAR:
        shown.append("bar")
        left -= BAR + 1
        label = label.ljust(min(LABEL, len(label) + left))
    return Fitted(tuple(shown), label, " ".join(words))


def _is_name(word: str) -> bool:
    """Of a figure whose value did not fit; a unit ends a figure."""
    return word[0].isalpha() and "/" not in word


def _plain_lines(label: str, unit: str, brief: bool) -> Iterator[Bar]:
    """A line a tenth of the work, if the last one is `EVERY` seconds ago; and one at the end."""
    started = told = time.monotonic()
    shown = -1

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal shown, told
        tenth, now = 10 * done // max(total, 1), time.monotonic()
        is_last = done >= total and not (brief and shown < 0)
        if tenth == shown or (now < told + EVERY and not is_last):
            return
        shown, told, seconds = tenth, now, now - started
        line = f"{label}: {done}/{total} {unit}, {seconds:.1f} s" + (f", {text}" if text else "")
        print(line, file=sys.stderr, flush=True)

    yield update
