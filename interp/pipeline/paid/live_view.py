"""The live view of paid work: what is done, how quickly, and what it costs.

Two lines that stand still on a terminal, a plain line now and then elsewhere, both on stderr.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

REDRAWS = 5
"""Redraws a second on a terminal."""
PLAIN_EVERY = 10.0
"""Seconds between two lines elsewhere."""
PACE_SECONDS = 10.0
"""Requests per second are those of this long."""
ETA_SECONDS = 60.0
"""What is left to do is timed by the latents of this long."""
MOST_BAR = 40
LEAST_BAR = 5
"""Widest and narrowest bar, in columns; where less room is left there is none."""


@dataclass
class Meter:
    """Counters of one paid run. The engine writes them, the view reads them: no lock is needed.

    Set `n_done` and `n_total` before the view starts: what was done earlier is no pace.
    """

    n_done: int = 0
    """Latents done, also by earlier runs, of `n_total`."""
    n_total: int = 0
    n_ok: int = 0
    """Latents of this run, as are `n_failed` and `n_refused`."""
    n_failed: int = 0
    n_refused: int = 0
    n_answers: int = 0
    """Requests answered, questions that mend an answer included."""
    n_sent: int = 0
    """HTTP requests sent."""
    in_flight: int = 0
    limit: int = 0
    """How many may be in flight."""
    spent: float = 0.0
    """USD of this stage, as are `reserved` and `cap`; NaN when the server does not say."""
    reserved: float = 0.0
    """What the requests in flight may cost at worst."""
    cap: float | None = None
    unit: str = "latents"
    """What `n_total` is of."""


@contextmanager
def live(
    label: str,
    meter: Meter,
    clock: Callable[[], float] = time.monotonic,
    every: float = PLAIN_EVERY,
) -> Iterator[None]:
    """Show `meter` while the block runs, and where it stood at its end (also on SIGINT).

    `every`: seconds between two lines where stderr is no terminal.
    """
    view = View(label, meter, clock)
    console = _terminal()
    show = _plain_lines(view, every) if console is None else _two_lines(view, console)
    with show:
        yield


class Pace:
    """How quickly a counter grew over the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._marks: deque[tuple[float, int]] = deque()  # (time, count); the first may be older
        self._changed = 0.0

    def note(self, now: float, count: int) -> None:
        if not self._marks or self._marks[-1][1] != count:
            self._changed = now
        self._marks.append((now, count))
        while len(self._marks) > 2 and self._marks[1][0] <= now - self.seconds:
            self._marks.popleft()

    @property
    def per_second(self) -> float:
        """0 when nothing came. The first second counts as a whole one: it would jump about."""
        if not self._marks:
            return 0.0
        (first, before), (last, count) = self._marks[0], self._marks[-1]
        return max(count - before, 0) / max(last - first, 1.0)

    @property
    def quiet(self) -> float:
        """Seconds that the counter has stood still."""
        return self._marks[-1][0] - self._changed if self._marks else 0.0


class Frame(NamedTuple):
    """What is to be seen at one moment, in words."""

    done: str
    eta: str
    pace: str
    in_flight: str
    counts: str
    dollars: str


class View:
    """A meter over time. It holds the last minute of two counters and nothing else."""

    def __init__(self, label: str, meter: Meter, clock: Callable[[], float]) -> None:
        self.label, self.meter = label, meter
        self._clock, self._lock = clock, threading.Lock()
        self._started = clock()
        self._n_before = meter.n_answers
        self._ended = False
        self._answers, self._done = Pace(PACE_SECONDS), Pace(ETA_SECONDS)
        self.look()

    def look(self) -> Frame:
        """The frame of now; looking often makes the pace exact."""
        meter, now = self.meter, self._clock()
        with self._lock:  # what the block prints is drawn by its thread, the rest by rich's
            self._answers.note(now, meter.n_answers)
            self._done.note(now, meter.n_done)
        total = f"{meter.n_total:,}"
        return Frame(
            done=f"{meter.n_done:>{len(total)},}/{total}",
            eta=f"in {duration(now - self._started)}" if self._ended else self._eta(),
            pace=self._pace(now),
            in_flight="" if self._ended else _in_flight(meter),
            counts=f"{meter.n_ok:,} ok, {meter.n_failed:,} failed, {meter.n_refused:,} refused",
            dollars=dollars(meter),
        )

    def end(self) -> None:
        """From here on the frame sums up: the mean pace, and the time taken in place of the ETA."""
        self._ended = True

    def line(self) -> str:
        """All of it in one plain line."""
        frame = self.look()
        words = (f"{frame.done} {self.meter.unit}", frame.counts, frame.dollars)
        rest = (frame.pace, frame.in_flight, frame.eta)
        parts = [" ".join(part.split()) for part in (*words, *rest) if part]
        return f"{self.label}: {', '.join(parts)}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Two lines, never wider than the terminal; what does not fit is cut, the bar first."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        frame, width = self.look(), options.max_width
        figures = "  ".join((frame.done, frame.eta, frame.pace, frame.in_flight)).rstrip()
        room = width - len(self.label) - len(figures) - 5
        if room < LEAST_BAR:
            yield _one_line(f"{self.label}  {figures}")
        else:
            row = Table.grid(padding=(0, 2, 0, 0))
            total = max(self.meter.n_total, 1)
            bar = ProgressBar(total, self.meter.n_done, width=min(room, MOST_BAR))
            row.add_row(_one_line(self.label), bar, _one_line(figures))
            yield row
        yield _one_line(f"  {frame.counts}   {frame.dollars}".rstrip(), "cyan")

    def _pace(self, now: float) -> str:
        if self._ended:
            n = self.meter.n_answers - self._n_before
            return f"{n / max(now - self._started, 1.0):5.1f} req/s"
        quiet = min(self._answers.quiet, self._done.quiet)
        if quiet >= PACE_SECONDS:
            return f"quiet {duration(quiet):>5}"  # all wait: what still moves is this clock
        return f"{self._answers.per_second:5.1f} req/s"

    def _eta(self) -> str:
        n_left, pace = self.meter.n_total - self.meter.n_done, self._done.per_second
        known = n_left == 0 or pace > 0
        return f"eta {duration(n_left / pace if n_left else 0.0) if known else '-':>7}"


def dollars(meter: Meter) -> str:
    """What is spent, what the requests in flight may add, the cap; "" when all is free."""
    if not meter.spent and not meter.reserved:
        return ""
    spent = "cost unknown" if math.isnan(meter.spent) else f"{_usd(meter.spent)} spent"
    reserved = f", {_usd(meter.reserved)} reserved" if meter.reserved else ""
    if meter.cap is None:
        return spent + reserved
    joint = ", cap" if math.isnan(meter.spent) and not reserved else " of"
    return f"{spent}{reserved}{joint} {_cap(meter.cap)}"


def duration(seconds: float) -> str:
    """0:42, 12:00, 1:02:03, 2 d 04 h."""
    minutes, second = divmod(max(math.ceil(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24:,} d {hours % 24:02} h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _in_flight(meter: Meter) -> str:
    if not meter.limit:
        return f"{meter.in_flight} in flight"
    return f"{meter.in_flight:>{len(str(meter.limit))}}/{meter.limit} in flight"


def _usd(usd: float) -> str:
    return f"${usd:,.4f}" if usd < 10 else f"${usd:,.2f}"


def _cap(usd: float) -> str:
    return f"${usd:,.2f}" if usd == round(usd, 2) else f"${usd:,.6f}".rstrip("0")


def _one_line(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _terminal() -> Console | None:
    """The terminal behind stderr, when it can move its cursor."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return console if console.is_interactive else None


@contextmanager
def _two_lines(view: View, console: Console) -> Iterator[None]:
    from rich.live import Live

    # What the block prints on a stdout that goes elsewhere must not turn up on the terminal.
    to_screen = sys.stdout.isatty()
    display = Live(
        console=console,
        get_renderable=lambda: view,
        refresh_per_second=REDRAWS,
        redirect_stdout=to_screen,
    )
    with display:
        display.refresh()
        try:
            yield
        finally:
            view.end()
            display.transient = not view.meter.n_total  # nothing was to do: leave nothing behind


@contextmanager
def _plain_lines(view: View, every: float) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(view, every, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        view.end()
        if view.meter.n_total:
            print(view.line(), file=sys.stderr, flush=True)


def _tell(view: View, every: float, over: threading.Event) -> None:
    """A line every so often, as long as something changes."""
    before = _counters(view.meter)
    while not over.wait(every):
        now, line = _counters(view.meter), view.line()
        if now != before:
            print(line, file=sys.stderr, flush=True)
        before = now


def _counters(meter: Meter) -> tuple[int, ...]:
    return meter.n_done, meter.n_failed, meter.n_refused, meter.n_answers, meter.n_sent
