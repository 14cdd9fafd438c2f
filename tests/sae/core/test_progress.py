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


def test_without_a_terminal_a_line_comes_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("train", "steps") as progress:
        for done in range(101):
            progress(done, 100, TEXT)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith("train: 100/100 steps")
    assert lines[-1].endswith(TEXT)
