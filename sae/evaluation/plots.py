"""Figures -> PNG files. Each function draws one and writes it; none opens a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE, PAPER = "#22262b", "#5d646c", "#e5e1d9", "#fffefc"
TONES = ("#3d6ea8", "#c9772b", "#4d8c6a", "#8d5a9c", "#7b7f6d")
"""One for each domain or series, in order; those of the gallery."""
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": "#b9b4aa",
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlepad": 30,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.h_pad": 0.16,
    "figure.constrained_layout.w_pad": 0.16,
    "grid.color": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.pad": 6,
    "axes.labelpad": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}
SIZE = (7.6, 4.5)  # inches
DPI = 160


_SHARE_EDGES = np.linspace(0, 1, 21)


class Curve(NamedTuple):
    """SAEs that belong together, e.g. one SAE at several k."""

    name: str
    l0: Sequence[float]
    fvu: Sequence[float]
    notes: Sequence[str] = ()
    """What stands at each point, e.g. "k 16"; () for nothing."""


def plot_tradeoff(path: Path, curves: Sequence[Curve], title: str = "What sparsity costs") -> None:
    """FVU against L0, both logarithmic, a line for each curve; points not above 0 are left out."""
    with open_axes(path, title, "towards the lower left: fewer latents explain more") as axes:
        drawn = [_drawable(curve) for curve in curves]
        for curve, tone in zip(drawn, cycle(TONES), strict=False):
            axes.plot(curve.l0, curve.fvu, color=tone, marker="o", lw=1.8, label=curve.name)
            for l0, fvu, note in zip(curve.l0, curve.fvu, curve.notes, strict=False):
                place = ((l0, fvu), (0, 9))
                axes.annotate(note, *place, textcoords="offset points", ha="center", color=SOFT)
        _log_axis(axes, "x", [l0 for curve in drawn for l0 in curve.l0])
        _log_axis(axes, "y", [fvu for curve in drawn for fvu in curve.fvu])
        axes.set(xlabel="L0: active latents a token", ylabel="FVU: variance not explained")
        axes.grid(True)
        if len(curves) > 1:
            axes.legend()


class Point(NamedTuple):
    """One SAE of a sweep."""

    l0: float
    fvu: float
    name: str
    on_front: bool
    """No other has a lower FVU without a higher L0."""


def plot_pareto(path: Path, points: Sequence[Point]) -> None:
    """FVU against L0, both logarithmic, with the front as a line; what is not above 0 is left out.

    Names stand beside the points where there is room, those of the front first.
    """
    drawn = sorted(point for point in points if point.l0 > 0 and point.fvu > 0)
    front = [point for point in drawn if point.on_front]
    subtitle = f"{len(points)} SAEs; on the line those that no other beats in both"
    with open_axes(path, "What sparsity costs", subtitle) as axes:
        axes.plot([p.l0 for p in front], [p.fvu for p in front], color=TONES[0], lw=1.8)
        for point in drawn:
            tone = TONES[0] if point.on_front else "#b9b4aa"
            axes.plot(point.l0, point.fvu, color=tone, marker="o", ls="", zorder=3)
        # The names stand to the right of their points.
        _log_axis(axes, "x", [point.l0 for point in drawn], right=1.6)
        _log_axis(axes, "y", [point.fvu for point in drawn])
        for point in _with_room(axes, sorted(drawn, key=lambda point: not point.on_front)):
            tone = INK if point.on_front else SOFT
            place = ((point.l0, point.fvu), (8, 5))
            axes.annotate(point.name, *place, textcoords="offset points", color=tone, size=9)
        axes.set(xlabel="L0: active latents a token", ylabel="FVU: variance not explained")
        axes.grid(True)


def plot_frequency(path: Path, frequency: NDArray[np.float64], dense: float, n_tokens: int) -> None:
    """How often the latents fire: `frequency` (n_latents,) are shares of `n_tokens` tokens.

    Latents above the rate `dense` stand out; silent ones are counted in the subtitle.
    """
    live = frequency[frequency > 0]
    n_silent = len(frequency) - len(live)
    subtitle = (
        f"{len(frequency):,} latents on {n_tokens:,} tokens: {n_silent:,} never fire, "
        f"{int((live > dense).sum()):,} on more than {dense:.0%}"
    )
    with open_axes(path, "How often the latents fire", subtitle) as axes:
        low = min(-1.0, np.floor(np.log10(1 / n_tokens) * 4) / 4)
        bins = np.arange(low, 0.01, 0.25 if low < -3 else 0.125)
        # A rate that stands on an edge belongs to the bin above, whatever the rounding.
        heights, edges = np.histogram(np.minimum(np.log10(live) + 1e-9, 0), bins)
        left, width = 10 ** edges[:-1], np.diff(10**edges)
        tones = [TONES[1] if start >= dense * 0.999 else TONES[0] for start in left]
        axes.bar(left, heights, width, align="edge", color=tones, edgecolor=PAPER, lw=0.8)
        axes.axvline(dense, color=SOFT, lw=1, ls=(0, (3, 3)))
        axes.annotate(
            "dense",
            (dense, 1),
            (6, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            color=TONES[1],
        )
        _log_axis(axes, "x", [*left, 1.0], pad=1.0, percent=True)
        axes.set(xlabel="share of the tokens on which a latent fires", ylabel="latents")
        axes.grid(True, axis="y")
        _whole_numbers(axes)


def plot_share(path: Path, shares: Mapping[str, NDArray[np.float64]]) -> None:
    """Which domain the latents belong to: by domain its part (n,) in [0, 1] of each latent's rates.

    With two domains their bars mirror each other, and one is drawn; with more, a line for each.
    """
    first, *others = shares
    n_only = {domain: int((share >= 0.9).sum()) for domain, share in shares.items()}
    most = sorted(n_only, key=lambda domain: -n_only[domain])[:3] if others[2:] else list(shares)
    only = ", ".join(f"{n_only[domain]:,} nearly only on {domain}" for domain in most)
    only = only.replace(" nearly", " fire nearly", 1)
    title = f"{first.capitalize()} or {others[0]}?" if len(others) == 1 else "Which domain?"
    with open_axes(path, title, f"of {len(shares[first]):,} live latents {only}") as axes:
        if len(others) == 1:
            _draw_share_bars(axes, shares[first], first, others[0])
        else:
            _draw_share_lines(axes, shares)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylabel("live latents")
        axes.grid(True, axis="y")
        _whole_numbers(axes)


class Recalls(NamedTuple):
    """What steering does to classes, by the number of latents; means over the classes."""

    k: Sequence[int]
    own: Sequence[float]
    """Recall of the class whose latents they are."""
    others: Sequence[float]
    """Recall of the other classes."""


def plot_recalls(path: Path, curves: Mapping[str, Recalls]) -> None:
    """Recall against k, with "on", "off" and their "control_"; "no_sae" is a level."""
    words = {"off": "taken out", "on": "kept alone", "control_off": "random, taken out"}
    words["control_on"] = "random, kept alone"
    plain = curves["no_sae"].own[0]
    subtitle = "solid: the class itself; dashed: the other classes; dotted: the network alone"
    with open_axes(path, "What a class's latents do to its recall", subtitle) as axes:
        for (kind, word), tone in zip(words.items(), TONES, strict=False):
            if kind in curves:
                k, own, others = curves[kind]
                axes.plot(k, own, color=tone, marker="o", lw=1.8, label=word)
                axes.plot(k, others, color=tone, lw=1.2, ls=(0, (4, 3)))
        axes.axhline(plain, color=SOFT, lw=1, ls=(0, (1, 2)))
        _log_axis(axes, "x", [k for curve in curves.values() for k in curve.k if k > 0])
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        axes.set(xlabel="latents of the class", ylabel="images named as their class")
        axes.grid(True)
        axes.legend()


def plot_against_truth(path: Path, points: Mapping[str, tuple[Sequence[float], ...]]) -> None:
    """Scores (y) against what the truth gives on the same images (x), a colour a group."""
    subtitle = "each point a latent; on the line a score is the truth"
    with open_axes(path, "Scores of labels against the truth", subtitle) as axes:
        for (name, (truth, score)), tone in zip(points.items(), cycle(TONES), strict=False):
            axes.scatter(truth, score, s=13, color=tone, alpha=0.6, lw=0, label=name)
        axes.plot([0.3, 1], [0.3, 1], color=SOFT, lw=1, ls=(0, (4, 3)))
        axes.set(xlabel="AUROC of the label's own truth", ylabel="AUROC by the judge")
        axes.set_xlim(0.28, 1.02)
        axes.set_ylim(0.28, 1.02)
        axes.grid(True)
        axes.legend()


def plot_crossing(
    path: Path,
    groups: Mapping[str, NDArray[np.float64]],
    domains: tuple[str, str],
    bound: float,
    subtitle: str,
) -> None:
    """Held-out AUROC of labels in the other of two domains: a point a latent, a tone a group.

    `groups`: name -> (n, 2), of the first domain's labels on the second, and the other way round;
    an empty group stands in the legend alone. `bound`: from which on a label holds.
    """
    a, b = domains
    with open_axes(path, "Does a label hold in the other domain?", subtitle) as axes:
        for (name, areas), tone in zip(groups.items(), cycle(TONES), strict=False):
            axes.plot(
                areas[:, 0], areas[:, 1], color=tone, marker="o", ls="", alpha=0.8, label=name
            )
        for draw in (axes.axhline, axes.axvline):
            draw(bound, color=SOFT, lw=0.9, ls=(0, (4, 3)))
        axes.set(xlabel=f"AUROC of {a} labels on {b}", ylabel=f"AUROC of {b} labels on {a}")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        axes.grid(True)
        axes.legend(loc="lower left", fontsize=9)


def _draw_share_bars(axes: Axes, share: NDArray[np.float64], first: str, other: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    heights, edges = np.histogram(share, _SHARE_EDGES)
    blend = LinearSegmentedColormap.from_list("", [TONES[1], "#cfc8bb", TONES[0]])
    tones = [blend(middle) for middle in (edges[:-1] + edges[1:]) / 2]
    axes.bar(edges[:-1], heights, 0.05, align="edge", color=tones, edgecolor=PAPER, lw=0.8)
    named = [f"only\n{other}", "25%", "both alike", "75%", f"only\n{first}"]
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], named)
    axes.set_xlabel(f"part of a latent's rate that is {first}")


def _draw_share_lines(axes: Axes, shares: Mapping[str, NDArray[np.float64]]) -> None:
    even = 1 / len(shares)
    for (domain, share), tone in zip(shares.items(), cycle(TONES), strict=False):
        heights, edges = np.histogram(share, _SHARE_EDGES)
        axes.stairs(heights, edges, color=tone, lw=1.8, label=domain)
    axes.axvline(even, color=SOFT, lw=1, ls=(0, (3, 3)))
    place = ((even, 1), (6, -4))
    frame = ("data", "axes fraction")
    axes.annotate("all alike", *place, frame, "offset points", va="top", color=SOFT)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["never", "25%", "50%", "75%", "only"])
    axes.set_xlabel("part of a latent's rate that is the domain's")
    axes.legend()


def _drawable(curve: Curve) -> Curve:
    """The points that a logarithmic axis can show, by rising L0."""
    notes = curve.notes or [""] * len(curve.l0)
    points = sorted(
        p for p in zip(curve.l0, curve.fvu, notes, strict=True) if p[0] > 0 and p[1] > 0
    )
    return Curve(curve.name, *([point[column] for point in points] for column in range(3)))  # type: ignore[arg-type]


def _with_room(axes: Axes, points: Sequence[Point]) -> list[Point]:
    """Those whose names keep clear of the names of those before them."""
    where = axes.transData + axes.transAxes.inverted()
    named: list[tuple[float, float, Point]] = []
    for point in points:
        x, y = where.transform((point.l0, point.fvu))
        if all(abs(x - other_x) > 0.22 or abs(y - other_y) > 0.06 for other_x, other_y, _ in named):
            named.append((x, y, point))
    return [point for _, _, point in named]


@contextmanager
def open_axes(path: Path, title: str, subtitle: str) -> Iterator[Axes]:
    """An empty figure with a title; it is written to `path` when the block ends well."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)  # pyplot, and with it any window, is never touched
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.annotate(
            subtitle,
            (0, 1),
            (0, 12),
            xycoords="axes fraction",
            textcoords="offset points",
            color=SOFT,
        )
        yield axes
        with replacing(path) as part:
            figure.savefig(part, format="png")


def _log_axis(
    axes: Axes,
    which: str,
    values: Sequence[float],
    pad: float = 1.25,
    percent: bool = False,
    right: float = 0.0,
) -> None:
    """A logarithmic axis whose ticks are plain numbers: as many as there is room for."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values, default=0.1) / pad, max(values, default=10.0) * (right or pad)
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1,) if high / low > 300 else (1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 5, 7)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t * 1.0001 and t <= high]))
    axis.set_minor_locator(NullLocator())
    form = (lambda v, _: f"{100 * v:.6g}%") if percent else (lambda v, _: f"{v:.6g}")
    axis.set_major_formatter(FuncFormatter(form))


def _whole_numbers(axes: Axes) -> None:
    """Counts have no halves."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
