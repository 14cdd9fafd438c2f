"""The progress bar at the widths that terminals have."""

from __future__ import annotations

import io
import re

import pytest

from sae.core.progress import bar, fit

TEXT = "FVU 0.123 L0 12.0 dead 0.0% 66,298 rows/s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_steps_time_and_time_left_are_seen_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with bar("train", "steps") as progress:
        progress(1234, 20000, TEXT)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    last = [line for line in re.split(r"[\r\n]", plain) if "train" in line][-1].rstrip()
    assert len(last) <= width
    assert "…" not in last
    assert re.search(r"\b1234/20000\b", last)
    assert re.search(r"0:00:0\d +eta +(-:--:--|\d+:\d\d:\d\d)", last)
    assert ("FVU 0.123" in last) == (width >= 60)
    assert (TEXT in last) == (width >= 80)
    assert ("━" in last) == (width >= 120)


def test_what_is_cut_of_the_text_is_a_whole_figure() -> None:
    assert fit(60, "train", 20000, TEXT).text == "FVU 0.123 L0 12.0"
    assert fit(30, "train", 20000, TEXT).text == ""


class Clock:
    """Each look at it takes a while."""

    def __init__(self, step: float) -> None:
        self.now, self._step = 0.0, step

    def __call__(self) -> float:
        self.now += self._step
        return self.now


@pytest.mark.parametrize(
    ("step", "brief", "n_lines"),
    [
        (1.0, False, 11),  # 100 s: one a tenth, and the first
        (0.1, False, 5),  # 10 s: one in 2 s, at the next tenth
        (0.001, False, 1),  # over at once
        (0.001, True, 0),
        (1.0, True, 11),
    ],
)
def test_without_a_terminal_a_line_comes_now_and_then(
    step: float,
    brief: bool,
    n_lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sae.core.progress.time.monotonic", Clock(step))
    with bar("train", "steps", brief=brief) as progress:
        for done in range(101):
            progress(done, 100, TEXT)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == n_lines
    if lines:
        assert lines[-1].startswith("train: 100/100 steps")
        assert lines[-1].endswith(TEXT)


def test_a_step_that_is_over_at_once_leaves_nothing_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with bar("look", brief=True) as progress:
        progress(58, 58)
    left = shown.getvalue().rsplit("\x1b[2K", 1)[-1]  # what stands behind the last cleared line
    assert "look" not in left
