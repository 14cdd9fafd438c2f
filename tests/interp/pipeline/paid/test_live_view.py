"""The live view: known words for known counters; two lines that never wrap; plain lines."""

from __future__ import annotations

import fcntl
import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import pytest
from rich.console import Console

from interp.pipeline.paid.live_view import Meter, Pace, View, dollars, duration, live
from tests.support.paths import ROOT


class Clock:
    """Stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def busy() -> Meter:
    return Meter(n_done=5, n_total=40, limit=64, spent=0.0123, reserved=0.004, cap=5.0)


def drawn(view: View, width: int) -> list[str]:
    """The lines as rich draws them, without colours."""
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


# Words and figures


@pytest.mark.parametrize(
    ("meter", "words"),
    [
        (
            Meter(spent=0.0123, reserved=0.004, cap=5.0),
            "$0.0123 spent, $0.0040 reserved of $5.00",
        ),
        (Meter(spent=1234.5, cap=5000.0), "$1,234.50 spent of $5,000.00"),
        (Meter(spent=0.0123, reserved=0.004), "$0.0123 spent, $0.0040 reserved"),
        (Meter(reserved=0.004, cap=0.005), "$0.0000 spent, $0.0040 reserved of $0.005"),
        (Meter(spent=math.nan), "cost unknown"),
        (Meter(spent=math.nan, cap=2.0), "cost unknown, cap $2.00"),
        (Meter(spent=math.nan, reserved=0.5, cap=2.0), "cost unknown, $0.5000 reserved of $2.00"),
        (Meter(), ""),
        (Meter(cap=5.0), ""),
    ],
)
def test_dollars_say_spent_reserved_and_cap_and_nothing_when_all_is_free(meter, words):
    assert dollars(meter) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (41.2, "0:42"), (720, "12:00"), (3723, "1:02:03"), (187200, "2 d 04 h")],
)
def test_durations_are_as_a_clock_shows_them(seconds, words):
    assert duration(seconds) == words


def test_the_pace_is_that_of_the_last_seconds_and_not_of_the_whole_run():
    pace = Pace(10)
    for second in range(61):
        pace.note(second, 100 if second < 50 else 100 + 2 * (second - 50))
    assert pace.per_second == 2
    assert pace.quiet == 0
    pace.note(75, 120)
    assert pace.quiet == 15
    pace.note(90, 120)
    assert pace.per_second == 0


def test_a_burst_in_the_first_moment_is_no_high_pace():
    pace = Pace(10)
    pace.note(0.0, 0)
    pace.note(0.1, 3)
    assert pace.per_second == 3


def test_the_eta_follows_from_the_last_minute_and_not_from_what_earlier_runs_did():
    clock, meter = Clock(), busy()
    view = View("explain", meter, clock)
    assert view.look().eta.split() == ["eta", "-"]
    clock.now += 30
    meter.n_done += 15  # half a latent a second, 20 left
    assert view.look().eta.split() == ["eta", "0:40"]
    meter.n_done = meter.n_total
    assert view.look().eta.split() == ["eta", "0:00"]


def test_requests_per_second_turn_into_a_quiet_time_when_all_wait():
    clock, meter = Clock(), busy()
    view = View("explain", meter, clock)
    clock.now += 5
    meter.n_answers = 35
    assert view.look().pace.strip() == "7.0 req/s"
    clock.now += 9
    assert "req/s" in view.look().pace
    clock.now += 33
    assert view.look().pace.split() == ["quiet", "0:42"]
    meter.n_answers += 1
    assert "req/s" in view.look().pace


def test_the_end_tells_the_mean_pace_and_the_time_taken():
    clock, meter = Clock(), busy()
    meter.n_answers = 1000  # by an earlier stage with the same meter
    view = View("explain", meter, clock)
    clock.now += 100
    meter.n_answers, meter.n_done, meter.n_ok, meter.reserved = 1050, 40, 35, 0.0
    view.end()
    assert view.line() == (
        "explain: 40/40 latents, 35 ok, 0 failed, 0 refused, "
        "$0.0123 spent of $5.00, 0.5 req/s, in 1:40"
    )


# On a terminal


def test_the_two_lines_show_all_there_is_at_80_columns():
    clock = Clock()
    meter = Meter(1234, 24576, 1200, 30, 4, 0, 0, 16, 64, 12.5, 0.0457, 500.0)
    view = View("explain", meter, clock)
    clock.now += 60
    meter.n_done, meter.n_answers = 1834, 738
    first, second = drawn(view, 80)
    assert first.startswith("explain  ╸")
    assert first.index("1,834") - len("explain  ") >= 10  # room for a bar that tells something
    assert first.endswith(" 1,834/24,576  eta   37:55   12.3 req/s  16/64 in flight")
    assert second == (
        "  1,200 ok, 30 failed, 4 refused   $12.50 spent, $0.0457 reserved of $500.00"
    )


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 81, 120, 200])
def test_two_lines_of_any_width_fit_into_it(width):
    meter = Meter(98000, 98304, 96000, 1900, 100, 0, 0, 100, 128, 1250.5, 12.25, 5000.0)
    lines = drawn(View("score-control", meter, Clock()), width)
    assert len(lines) == 2
    assert max(map(len, lines)) <= width


def test_figures_that_grow_stay_in_their_columns():
    clock, meter = Clock(), busy()
    view = View("explain", meter, clock)
    before = drawn(view, 120)[0]
    clock.now += 10
    meter.n_done, meter.n_answers, meter.in_flight = 39, 1234, 64
    after = drawn(view, 120)[0]
    assert len(after) == len(before)
    assert [after.index(word) for word in ("/40", "eta", "req/s", "/64")] == [
        before.index(word) for word in ("/40", "eta", "req/s", "/64")
    ]


CHILD = """
import sys
from interp.pipeline.paid.live_view import Meter, live

meter = Meter(n_done=5, n_total={n}, limit=64, spent=0.0123, reserved=0.004, cap=5.0)
with live("explain", meter, clock=lambda: 0.0):
    print("a word in between")
    meter.n_done, meter.n_ok, meter.reserved = {n}, 35, 0.0
print("after")
"""


def on_terminal(columns: int, n: int = 40) -> list[str]:
    """What a child wrote to a terminal of that width, cut wherever it went back to redraw."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(n=n)],
        cwd=ROOT,
        env={**environment, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert child.wait() == 0
    frames = re.split(r"\x1b\[1A", written.decode())
    return [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", frame) for frame in frames]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says when the other side is closed
        return b""


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_frames_that_never_wrap_and_keeps_the_last(columns):
    frames = on_terminal(columns)
    assert len(frames) >= 3  # the first, one around the printed line, the last
    widths = [len(line.strip("\r")) for frame in frames for line in frame.split("\n")]
    assert max(widths) < columns
    first = frames[0].split("\r\n")
    assert " 5/40  eta       -    0.0 req/s   0/64 in flight" in first[0]
    assert "$0.0123 spent, $0.0040 reserved of $5.00" in first[1]
    assert sum("a word in between" in frame for frame in frames) == 1
    *last, after, end = frames[-1].split("\r\n")
    assert (after, end) == ("after", "")
    assert last[0].startswith("explain  ━")
    assert last[0].endswith("40/40  in 0:00    0.0 req/s")
    assert last[1].rstrip("\r") == "  35 ok, 0 failed, 0 refused   $0.0123 spent of $5.00"


def test_a_run_with_nothing_to_do_leaves_nothing_on_the_terminal():
    assert on_terminal(80, n=0)[-1].strip() == "after"


# Elsewhere


def test_off_a_terminal_one_line_tells_the_end(capsys):
    clock, meter = Clock(), busy()
    with live("score", meter, clock):
        clock.now += 70
        meter.n_done, meter.n_ok, meter.n_refused, meter.n_answers = 9, 3, 1, 7
    assert capsys.readouterr().err == (
        "score: 9/40 latents, 3 ok, 0 failed, 1 refused, "
        "$0.0123 spent, $0.0040 reserved of $5.00, 0.1 req/s, in 1:10\n"
    )


def test_an_interrupt_passes_through_and_the_end_is_told_all_the_same(capsys):
    meter = busy()
    with pytest.raises(KeyboardInterrupt), live("score", meter, Clock()):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.startswith("score: 5/40 latents")


def test_a_run_with_nothing_to_do_tells_nothing(capsys):
    with live("score", Meter(), Clock()):
        pass
    assert capsys.readouterr().err == ""


class Watched(io.StringIO):
    """A stderr that says when a line came."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def flush(self) -> None:
        self.came.set()


def test_off_a_terminal_a_line_comes_when_something_changed_and_only_then(monkeypatch):
    looks, clock, meter, errors = 0, Clock(), busy(), Watched()
    looked_often = threading.Event()

    def counting() -> float:
        nonlocal looks
        looks += 1
        if looks > 20:
            looked_often.set()
        return clock()

    monkeypatch.setattr(sys, "stderr", errors)
    with live("score", meter, counting, every=0.001):
        assert looked_often.wait(30)
        assert errors.getvalue() == ""
        meter.n_answers = 1
        assert errors.came.wait(30)
        looks = 0
        looked_often.clear()
        assert looked_often.wait(30)
    assert len(errors.getvalue().splitlines()) == 2  # one change, one end
