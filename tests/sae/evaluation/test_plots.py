from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sae.evaluation.plots import PAPER, Curve, plot_frequency, plot_share, plot_tradeoff

CURVE = Curve("", [4, 8, 16], [0.4, 0.2, 0.1], ["k 4", "k 8", "k 16"])


def size_of_drawing(path: Path) -> tuple[int, int]:
    """Pixels of the figure, and how many of them are not paper."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    paper = np.array([int(PAPER[i : i + 2], 16) for i in (1, 3, 5)])
    return pixels.shape[0] * pixels.shape[1], int((np.abs(pixels - paper).sum(2) > 30).sum())


@pytest.mark.parametrize("n_tokens", [1, 7, 1_000, 10_000_000])
def test_frequencies_of_any_number_of_tokens_are_drawn(tmp_path: Path, n_tokens: int) -> None:
    frequency = np.array([0, 1, min(n_tokens, 900), n_tokens]) / n_tokens
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_frequency(tmp_path / "some.png", frequency, 0.1, n_tokens)
        plot_frequency(tmp_path / "none.png", np.zeros(4), 0.1, n_tokens)
    n_pixels, with_bars = size_of_drawing(tmp_path / "some.png")
    empty = size_of_drawing(tmp_path / "none.png")[1]
    assert empty + 0.005 * n_pixels < with_bars


def test_latents_that_always_fire_are_drawn_too(tmp_path: Path) -> None:
    plot_frequency(tmp_path / "all.png", np.ones(4), 0.1, 1000)
    n_pixels, with_bar = size_of_drawing(tmp_path / "all.png")
    plot_frequency(tmp_path / "none.png", np.zeros(4), 0.1, 1000)
    assert with_bar > size_of_drawing(tmp_path / "none.png")[1] + 0.005 * n_pixels


def test_points_that_a_logarithmic_axis_cannot_show_are_left_out(tmp_path: Path) -> None:
    whole, more = tmp_path / "whole.png", tmp_path / "more.png"
    plot_tradeoff(whole, [CURVE])
    nan = float("nan")
    extra = Curve("", [*CURVE.l0, 32, 0, 5], [*CURVE.fvu, 0, 0.3, nan], [*CURVE.notes, "", "", ""])
    plot_tradeoff(more, [extra])
    assert more.read_bytes() == whole.read_bytes()
    plot_tradeoff(tmp_path / "none.png", [Curve("", [0], [0])])


def test_a_point_keeps_its_note_when_the_curve_is_put_in_order(tmp_path: Path) -> None:
    turned = Curve("", *([values[place] for place in (1, 2, 0)] for values in CURVE[1:]))  # type: ignore[arg-type]
    swapped = Curve("", CURVE.l0, CURVE.fvu, CURVE.notes[::-1])
    for name, curve in (("a", CURVE), ("b", turned), ("c", swapped)):
        plot_tradeoff(tmp_path / f"{name}.png", [curve])
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_one_point_and_shares_at_the_ends_are_drawn(tmp_path: Path) -> None:
    plot_tradeoff(tmp_path / "one.png", [Curve("a", [32], [0.1]), Curve("b", [32], [0.1])])
    share = np.array([0.0, 0.5, 1.0])
    plot_share(tmp_path / "share.png", {"sketch": share, "photo": 1 - share})
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "share.png"}


def test_the_texts_of_the_shares_follow_from_the_number_of_domains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        "matplotlib.text.Text.set_text", lambda text, words: written.append(str(words))
    )
    share = np.array([0.0, 0.5, 1.0])
    for names, there, absent in (
        ("sketch photo", ("both alike", "Sketch or photo?", "only\nphoto"), ("all alike",)),
        ("sketch photo scan", ("all alike", "Which domain?", "50%", "scan"), ("both alike",)),
        ("a b c d e f g", ("all alike", "of 3 live latents 1 fire nearly only on a, "), ("both",)),
    ):
        written.clear()
        plot_share(tmp_path / "share.png", dict.fromkeys(names.split(), share))
        said = "|".join(written)
        assert all(words in said for words in there)
        assert not any(words in said for words in absent)


def test_no_window_system_is_touched(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sae.evaluation.plots import Curve, plot_tradeoff\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_tradeoff(Path(sys.argv[1]), [Curve('', [4, 8], [0.2, 0.1])])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one.png")], check=True)
