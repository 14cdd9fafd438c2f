"""Evidence, explanation and score of one latent -> its card: JSON values, as card.js reads them.

Images are listed once per card; whatever shows one refers to it by its place in that list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

from interp.records.circular import is_circular
from interp.records.effect import CausalEffect
from interp.records.support import Support
from interp.records.transfer import CELLS, Transfer
from interp.records.types import Example, Explanation, LatentStats, Score
from interp.records.wording import hash_label, marked_label
from interp.report.figures import number
from interp.report.gallery.shown import Shown
from sae.data.view import Heat, view_box

Json = Any
"""A plain JSON value."""


class More(TypedDict, total=False):
    """What else a card shows, where the run has it."""

    effect: CausalEffect | None
    """What editing the latent does to its label."""
    support: Support | None
    crossed: Transfer | None
    """Whether labels hold in another domain."""
    tasks: list[str]
    """What other judging tasks say, a sentence each."""
    nulls: list[list[Json]]
    """As `RunNulls.of` gives them."""
    related: dict[str, Json]
    """As `Related.of` gives them."""


def make_facts(
    stats: LatentStats,
    explanation: Explanation | None,
    score: Score | None,
    domains: Sequence[str],
    shown: Shown,
    clip: str,
    more: More,
) -> dict[str, Json]:
    """The card of one latent without its list of `images`, whose places it names; `clip` is what
    the SAE is made of."""
    effect, crossed = more.get("effect"), more.get("crossed")
    return {
        "id": stats.latent,
        "stats": _stats(stats, domains),
        "label_hash": hash_label(explanation),
        "explanation": _explanation(explanation),
        "score": _score(score, explanation, clip),
        "nulls": more.get("nulls", []),
        "causal": effect.in_words() if effect else "",
        "edits": _edits(effect) if effect else [],
        "support": _support(more.get("support")),
        "transfer": _transfer(crossed) if crossed else None,
        "tasks": more.get("tasks", []),
        "related": more.get("related", {}),
        "top": shown.top,
        "quantiles": shown.quantiles,
        "verdicts": shown.verdicts,
    }


def image_row(
    e: Example, domains: Sequence[str], is_there: bool = True, box: Sequence[float] | None = None
) -> list[Json]:
    """An image of a card's list; `box` is what `frame_box` gives."""
    place = [] if box is None else [list(box)]
    return [e.image_id, domains.index(e.domain), e.label, e.path, int(is_there), *place]


def frame_box(size: tuple[int, int], heat: Heat) -> list[float]:
    """Where the patches lie in the square frame that holds a whole image of `size` (w, h) in its
    middle: left, top, width, height in per cent of the frame; then how much of their width and
    height lies beyond the image on either side, in per cent of it."""
    box, side = view_box(size, heat.view, heat.aspect), max(size)
    left, top = box.left + (side - size[0]) / 2, box.top + (side - size[1]) / 2
    shares = [length / side for length in (left, top, box.width, box.height)]
    beyond = [max(0, -box.left) / box.width, max(0, -box.top) / box.height]
    return [round(100 * share, 2) for share in (*shares, *beyond)]


def is_stale(score: Score, explanation: Explanation | None) -> bool:
    """Whether the score belongs to another label than the latent has now."""
    return explanation is None or score.label != explanation.label


def _stats(stats: LatentStats, domains: Sequence[str]) -> dict[str, Json]:
    return {
        "status": stats.status,
        "n_active": stats.n_active,
        "frequency": number(stats.frequency),
        "token_frequency": number(stats.token_frequency),
        "mean": number(stats.mean_act),
        "max": number(stats.max_act),
        "hist": list(stats.hist),
        "rates": [number(stats.domain_rate.get(domain, math.nan)) for domain in domains],
        "entropy": number(stats.class_entropy),
        "classes": [list(pair) for pair in stats.top_classes],
    }


def _explanation(e: Explanation | None) -> dict[str, Json] | None:
    if e is None:
        return None
    kept = (
        "label",
        "second_label",
        "description",
        "verdict",
        "level",
        "confidence",
        "failure",
        "reason",
        "domain",
        "provenance",
    )
    origin = ("model", "provider", "prompt")
    return {
        **{name: getattr(e, name) for name in kept + origin},
        "marked_label": marked_label(e),
        "lint": list(e.lint),
        "candidates": list(e.candidates),
        "n_shown": len(e.codes),
        "n_calls": len(e.calls),
        "usd": number(e.usd),
    }


def _score(s: Score | None, explanation: Explanation | None, clip: str) -> dict[str, Json] | None:
    if s is None:
        return None
    figures = ("auroc", "auroc_low", "auroc_high", "auroc_easy", "auroc_hard")
    more = ("balanced_accuracy", "spearman", "usd")
    kept = (
        "label",
        "model",
        "prompt",
        "n_positive",
        "n_negative",
        "n_missing",
        "failure",
        "reason",
        "note",
        "stopped",
    )
    return {
        **{name: number(getattr(s, name)) for name in figures + more},
        **{name: getattr(s, name) for name in kept},
        "n_calls": len(s.calls),
        "stale": is_stale(s, explanation),
        "circular": is_circular(s.model, clip),
    }


def _support(s: Support | None) -> dict[str, Json] | None:
    """What the label is held against; None where no null was graded."""
    if s is None:
        return None
    figures = ("p", "p_adjusted", "gain", "gain_low", "gain_high")
    words = {"state": s.state, "reason": s.reason, "best": s.best, "n_others": s.n_others}
    return {**words, **{name: number(getattr(s, name)) for name in figures}}


def _edits(effect: CausalEffect) -> list[list[Json]]:
    """Both edits: what was done, effect, interval; none without figures."""
    if effect.failure is not None:
        return []
    taken = ("taken out", effect.ablate, effect.ablate_low, effect.ablate_high)
    put = ("put in", effect.boost, effect.boost_low, effect.boost_high)
    return [[name, *map(number, figures)] for name, *figures in (taken, put)]


def _transfer(crossed: Transfer) -> dict[str, Json]:
    """What is said of the 2x2, and its rows: whose label, whose images, AUROC and interval."""
    named = {"a": crossed.domain_a, "b": crossed.domain_b}
    cells = [
        [named[name[0]], named[name[1]], *map(number, cell)]
        for name, cell in zip(CELLS, crossed.cells, strict=True)
        if not math.isnan(cell.auroc)
    ]
    return {"words": crossed.words(), "cells": cells}
