"""One edited image -> a PNG: the image, where the latents respond, probabilities as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sae.core.files import replacing
from sae.evaluation.plots import DPI, INK, LINE, PAPER, SOFT, STYLE, TONES

if TYPE_CHECKING:
    from sae.steering.edit.run import EditedImage, LatentHeat
    from sae.steering.edits import Edit

MOST_HEATS = 3
"""Latents of which the heat is drawn."""
N_BARS = 5
"""Classes of a head that are drawn, and printed."""
MAGENTA = "#e0218a"
SIDE = 2.5
"""Inches of an image, and of a column of bars."""
WORDS = {"zero_shot": "zero-shot", "probe": "probe"}


def draw_edit(
    path: Path,
    heads: dict[str, tuple[str, ...]],
    edits: Sequence[Edit],
    image: EditedImage,
    grid: Sequence[int],
) -> None:
    """Write the picture. Without a grid (the SAE reads CLS alone) there is no heat."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = image.heats[:MOST_HEATS] if len(grid) else []
    n_pictures, n_bars = 1 + len(shown), len(heads)
    with matplotlib.rc_context({**STYLE, "axes.titlesize": 10.5, "axes.titlepad": 8}):
        size = (SIDE * (n_pictures + 1.25 * n_bars) + 0.4, SIDE + 0.95)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)  # pyplot, and with it any window, is never touched
        ratios = [1.0] * n_pictures + [1.25] * n_bars
        axes = figure.subplots(1, n_pictures + n_bars, width_ratios=ratios, squeeze=False)[0]
        title = fill("; ".join(map(_say_edit, edits)), int(9 * size[0]) - 18)  # beside the legend
        figure.suptitle(title, x=0.01, ha="left", weight="bold", parse_math=False)
        _picture(axes[0], image.seen, image.path.name)
        for place, (one, heat) in enumerate(zip(axes[1:], shown, strict=False)):
            _picture(one, _grey(image.seen), _say_heat(heat))
            _draw_heat(one, heat, image.edited[:, place], grid)
        for one, (head, classes) in zip(axes[n_pictures:], heads.items(), strict=True):
            _draw_bars(one, WORDS[head], classes, image.before[head], image.after[head])
        handles, words = axes[-1].get_legend_handles_labels()
        figure.legend(handles, words, loc="upper right", ncols=2, borderaxespad=0.4)
        with replacing(path) as part:
            figure.savefig(part, format="png")


def likeliest(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers of the classes of the highest probability before or after, at most `N_BARS`."""
    return np.argsort(-np.maximum(before, after), kind="stable")[:N_BARS]


def _say_edit(edit: Edit) -> str:
    """As a title has it."""
    words = {"set": "set to", "add": "plus", "multiply": "times"}
    return f"latent {edit.latent} {words[edit.how]} {edit.value:.3g}"


def _say_heat(heat: LatentHeat) -> str:
    return f"#{heat.latent}: max {heat.before.max():.3g} → {heat.after.max():.3g}"


def _picture(axes: Any, pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels, extent=(0, 1, 1, 0), interpolation="nearest")
    short = title if len(title) <= 34 else f"{title[:31]}..."
    axes.set_title(short, color=INK, weight="normal", parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half faded, so that colours laid over it are seen."""
    grey = pixels.mean(2, keepdims=True).repeat(3, 2)
    return np.asarray((grey + 255) / 2, np.uint8)


def _draw_heat(axes: Any, heat: LatentHeat, edited: NDArray[np.bool_], grid: Sequence[int]) -> None:
    """Activations before the edit, the largest the darkest; a frame is around edited patches."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    h, w = grid
    patches = heat.before[-h * w :].reshape(h, w)
    share = patches / max(float(patches.max()), 1e-12)
    colours = colormaps["plasma"](1 - share)
    colours[..., 3] = 0.85 * np.clip(share, 0, 1)
    axes.imshow(colours, extent=(0, 1, 1, 0), interpolation="nearest")
    frames = [(x / w, y / h, 1 / w, 1 / h) for y, x in np.argwhere(edited[-h * w :].reshape(h, w))]
    for x, y, width, height in [(0.0, 0.0, 1.0, 1.0)] if len(frames) == h * w else frames:
        frame = Rectangle((x, y), width, height, fill=False, ec=MAGENTA, lw=1.4, clip_on=False)
        axes.add_patch(frame)


def _draw_bars(
    axes: Any,
    head: str,
    classes: Sequence[str],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> None:
    order = likeliest(before, after)
    places = np.arange(len(order), dtype=float)
    for shift, share, tone, word in (
        (-0.19, before[order], "#b9b4aa", "before"),
        (0.19, after[order], TONES[1], "after"),
    ):
        axes.barh(places + shift, share, 0.36, color=tone, label=word)
        for place, value in zip(places + shift, share, strict=True):
            words = f"{value:.0%}" if value >= 0.095 or value < 5e-4 else f"{value:.1%}"
            axes.text(value + 0.02, place, words, va="center", size=8, color=SOFT)
    names = [name if len(name) <= 16 else f"{name[:14]}..." for name in (classes[n] for n in order)]
    axes.set_yticks(places, names, color=INK, parse_math=False)
    axes.set_ylim(N_BARS - 0.4, -0.6)
    axes.set_xlim(0, 1.16)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.set_title(f"{head}: probability", color=INK, weight="normal")
    axes.spines["left"].set_color(LINE)
    axes.set_facecolor(PAPER)
