"""What rises and falls most clearly -> compare.png, with 95% intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from interp.report.canvas import printable
from interp.report.changes.files import Shown
from sae.evaluation.plots import SOFT, TONES, open_axes

FILE = "compare.png"
N_EACH = 10
"""Rises, and falls, that are drawn."""


def draw_changes(
    path: Path, rises: Sequence[Shown], falls: Sequence[Shown], labels: Mapping[int, str], note: str
) -> Path:
    """A line a latent and class, the clearest rise on top, the clearest fall at the bottom."""
    drawn = [*rises[:N_EACH], *reversed(falls[:N_EACH])][::-1]  # from below
    with open_axes(path, "Which latents rise and fall", note) as axes:
        for at, one in enumerate(drawn):
            tone = TONES[0] if one.difference > 0 else TONES[1]
            axes.plot([one.low, one.high], [at, at], color=tone, lw=1.6, alpha=0.7)
            axes.plot([one.difference], [at], color=tone, marker="o", ms=5)
        axes.axvline(0, color=SOFT, lw=0.9, ls=(0, (4, 3)))
        axes.set_yticks(range(len(drawn)), [_name(one, labels) for one in drawn], fontsize=8)
        for words in axes.get_yticklabels():
            words.set_parse_math(False)
        axes.set(xlabel="difference of the mean activation, 95% interval")
        axes.set(ylim=(-0.8, max(len(drawn), 1) - 0.2))
        axes.grid(True, axis="x")
        if not drawn:
            axes.annotate(
                "none does", (0.5, 0.5), xycoords="axes fraction", ha="center", color=SOFT
            )
    return path


def _name(one: Shown, labels: Mapping[int, str]) -> str:
    label = " ".join(printable(labels.get(one.latent, "")).split())
    words = f"#{one.latent} {label}".strip()
    shown = textwrap.shorten(words, 34, placeholder=" …") or words[:34]
    if not one.class_name:
        return shown
    where = " ".join(printable(one.class_name).split())
    return f"{shown}  in {textwrap.shorten(where, 20, placeholder=' …') or where[:20]}"
