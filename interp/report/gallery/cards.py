"""Evidence, explanation and score of one latent -> its card: JSON values, as card.js reads them.

Images are listed once per card; whatever shows one refers to it by its place in that list.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypedDict

from interp.records.circular import is_circular
from interp.records.effect import CausalEffect
from interp.records.support import Support
from interp.records.transfer import CELLS, Transfer
from interp.records.types import Evidence, Example, Explanation, LatentStats, Score, Verdict
from interp.records.wording import hash_label, marked_label
from interp.report.figures import number, whole
from sae.data.view import Heat, view_box

N_TOP = 8
"""Strongest images shown per domain."""
N_PER_STRATUM = 4
"""Images shown per fifth of the activation range."""

Json = Any
"""A plain JSON value."""


class Shown(NamedTuple):
    """The examples of one card, as it groups them."""

    tops: list[list[Example]]
    """The strongest of each domain."""
    quantiles: list[list[Example]]
    """Some of each stratum, from the weakest."""
    judged: list[Example]
    """Of the score's verdicts, in their order."""
    images: dict[str, Example]
    """Every image that the card shows, by id, in the order of first use; a content stands once."""


def find_shown(evidence: Evidence, score: Score | None, domains: Sequence[str]) -> Shown:
    """What a card shows of the evidence and of the score's verdicts."""
    tops, quantiles = _tops(evidence, domains), _quantiles(evidence)
    judged = _judged(evidence, score)
    images: dict[str, Example] = {}
    for example in chain.from_iterable((*tops, *quantiles, judged)):
        images.setdefault(example.image_id, example)
    return Shown(tops, quantiles, judged, images)


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


def make_card(
    evidence: Evidence,
    explanation: Explanation | None,
    score: Score | None,
    domains: Sequence[str],
    clip: str = "",
    more: More | None = None,
    shown: Shown | None = None,
) -> dict[str, Json]:
    """The card of one latent: what `make_facts` gives, and its images, all there."""
    shown = shown or find_shown(evidence, score, domains)
    facts = make_facts(evidence, explanation, score, domains, shown, clip, more or {})
    return facts | {"images": [image_row(e, domains) for e in shown.images.values()]}


def make_facts(
    evidence: Evidence,
    explanation: Explanation | None,
    score: Score | None,
    domains: Sequence[str],
    shown: Shown,
    clip: str,
    more: More,
) -> dict[str, Json]:
    """The card of one latent without its list of `images`, whose places it names; `clip` is what
    the SAE is made of."""
    place = {image_id: index for index, image_id in enumerate(shown.images)}
    effect, crossed = more.get("effect"), more.get("crossed")
    return {
        "id": evidence.stats.latent,
        "stats": _stats(evidence.stats, domains),
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
        "top": [[_shown(e, place) for e in row] for row in shown.tops],
        "quantiles": [[_shown(e, place) for e in row] for row in shown.quantiles],
        "verdicts": _verdicts(score, shown.judged, place),
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


def _tops(evidence: Evidence, domains: Sequence[str]) -> list[list[Example]]:
    """The strongest images of each domain."""
    tops = evidence.of("explain", "top")
    return [[e for e in tops if e.domain == domain][:N_TOP] for domain in domains]


def _quantiles(evidence: Evidence) -> list[list[Example]]:
    """Some images of each stratum, from the weakest."""
    sample = evidence.of("explain", "quantile")
    strata = sorted({e.stratum for e in sample})
    return [[e for e in sample if e.stratum == stratum][:N_PER_STRATUM] for stratum in strata]


def _judged(evidence: Evidence, score: Score | None) -> list[Example]:
    """The held-out images that the scorer was asked about, as examples."""
    held_out = {e.image_id: e for e in evidence.examples if e.side == "score"}
    latent = evidence.stats.latent
    verdicts = score.verdicts if score else ()
    return [held_out.get(v.image_id) or _unlisted(latent, v) for v in verdicts]


def _unlisted(latent: int, v: Verdict) -> Example:
    """A judged image that the evidence does not hold (any more): its class and name are unknown."""
    return Example(
        latent, "score", v.kind, 0, v.stratum, v.row, v.image_id, v.domain, "", "", v.act
    )


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


def _shown(e: Example, place: Mapping[str, int]) -> list[Json]:
    return [place[e.image_id], number(e.act), _heat(e)]


def _heat(e: Example) -> str | None:
    return base64.b64encode(e.heat).decode("ascii") if e.heat else None


def _verdicts(
    score: Score | None, examples: Sequence[Example], place: Mapping[str, int]
) -> list[Json]:
    """Held-out images: positives first by activation, then the hard and the other negatives."""
    if score is None:
        return []
    judged = zip(score.verdicts, examples, strict=True)
    ordered = sorted(judged, key=lambda pair: _order(pair[0]))
    return [
        [
            place[v.image_id],
            int(v.truth),
            number(v.act),
            v.kind,
            None if v.score is None else whole(v.score),
            _heat(e) if v.truth else None,
        ]
        for v, e in ordered
    ]


def _order(v: Verdict) -> tuple[bool, bool, float, float, str]:
    """The judge's clearest mistakes among the negatives come first."""
    return (not v.truth, v.kind != "hard", -v.act, -(v.score or 0.0), v.image_id)
