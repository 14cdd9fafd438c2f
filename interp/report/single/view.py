"""Facts of one latent -> what the page of its stand-alone card is filled with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interp.report.choice import spread
from interp.report.gallery.index import make_meta
from interp.report.single.facts import MOST_ITEMS, Facts
from interp.report.single.pictures import Fineness
from interp.run.run import Run

MOST_DOMAINS = 4
"""Whose strongest images are shown; of more those with the largest rates."""
MOST_DOTS = 240
"""Answers drawn on the strip of the held-out test."""
NULLS = {
    "generic": "says nothing",
    "domain": "its domain",
    "class": "commonest class",
    "shuffled": "other labels",
    "word": "other words",
    "control": "another's label",
}
"""Kinds of nulls in words, as the gallery's card.js has them."""
BANDS = {
    "untrained": "untrained SAE",
    "random": "random directions",
    "shuffled": "shuffled labels",
}
_HALVES = (
    ("active", "Active: the label should fit"),
    ("hard", "Silent look-alikes: it should not"),
    ("weak", "Weakest: it should fit these less"),
    ("silent", "Silent, drawn at random"),
)
Json = Any


class Row(NamedTuple):
    """A dot with its interval on an axis."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    hollow: bool


def make_view(
    run: Run, facts: Facts, bands: Sequence[Mapping[str, Json]], fineness: Fineness
) -> dict[str, Json]:
    """By name, as page.jinja asks for it."""
    card, meta = facts.card, make_meta(run.evidence, run.path.resolve().name)
    return {
        "card": card,
        "meta": meta,
        "source": describe_source(meta),
        "rows": score_rows(card, bands),
        "bars": _bars(card["stats"]["hist"]),
        "tops": _tops(card, meta["domains"], fineness.n_top),
        "strata": [part[: fineness.n_stratum] for part in card["quantiles"]],
        "halves": _halves(card["verdicts"], fineness.n_judged),
        "dots": spread(card["verdicts"], MOST_DOTS),
        "square": _square(card["transfer"]),
        "edits": _edits(card["edits"]),
    }


def describe_source(meta: Mapping[str, Json]) -> str:
    """What the SAE reads, in words: CLIP, layer and tokens."""
    layer = meta["layer"]
    layer = "projected embedding" if layer == "projected" else f"block {layer}"
    tokens = "cls" if meta["pool"] == "cls" else meta["tokens"]
    named = {"cls": "class token", "patch": "patch tokens", "all": "all tokens"}[tokens]
    kept = {"max": "the largest", "mean": "the mean", "sum": "the sum"}.get(meta["pool"], "")
    pooled = f", {kept} of an image" if tokens != "cls" and kept else ""
    return f"{meta['clip']} · {layer} · {named}{pooled}"


def score_rows(card: Mapping[str, Json], bands: Sequence[Mapping[str, Json]]) -> list[Row]:
    """The score, then what it is held against, all on one axis of AUROC; [] without a score."""
    score = card["score"]
    if score is None or score["failure"]:
        return []
    own = Row("this label", score["auroc"], score["auroc_low"], score["auroc_high"], False)
    rows = [own, Row("random", score["auroc_easy"], None, None, False)]
    rows.append(Row("look-alikes", score["auroc_hard"], None, None, False))
    for kind, words, value, low, high in card["nulls"][:MOST_ITEMS]:
        name = f"“{words[:40]}”" if kind == "domain" else NULLS.get(kind, kind)
        rows.append(Row(name, value, low, high, True))
    has_control = any(kind == "control" for kind, *_ in card["nulls"])
    for band in bands:
        if band["name"] in BANDS and not (band["name"] == "shuffled" and has_control):
            values = (band["mean"], band["low"], band["high"])
            rows.append(Row(BANDS[band["name"]], *values, True))
    return rows


def _bars(counts: Sequence[int]) -> list[float]:
    """Heights of the histogram, 0 to 1, logarithmic."""
    heights = np.log10(np.array(counts, float) + 1) / np.log10(max(*counts, 9) + 1)
    return [round(float(height), 4) for height in heights]


def _tops(card: Mapping[str, Json], domains: Sequence[str], n: int) -> list[Json]:
    """Name, rate and strongest images of the domains with the largest rates, in their order."""
    rates = [rate or 0.0 for rate in card["stats"]["rates"]]
    largest = sorted(range(len(domains)), key=lambda at: -rates[at])[:MOST_DOMAINS]
    return [(domains[at], rates[at], card["top"][at][:n]) for at in sorted(largest)]


def _halves(verdicts: Sequence[Json], n: int) -> list[Json]:
    """Title, how many are right, how many there are, and some to show, of each kind of image."""
    kinds: dict[str, list[Json]] = {kind: [] for kind, _ in _HALVES}
    for verdict in verdicts:
        kinds["active" if verdict[1] else verdict[3] if verdict[3] in kinds else "silent"].append(
            verdict
        )
    found = [(title, kinds[kind]) for kind, title in _HALVES if kinds[kind]]
    share = n // max(1, len(found))
    return [
        (title, sum(is_right(v) is True for v in of), len(of), spread(of, share))
        for title, of in found
    ]


def is_right(verdict: Sequence[Json]) -> bool | None:
    """Whether the judge is right, as balanced accuracy counts; None without an answer."""
    _, truth, _, _, score, _ = verdict
    return None if score is None else (score >= 50) == bool(truth)


def _square(transfer: Mapping[str, Json] | None) -> Json:
    """Domains and the cells by the pair of them."""
    if not transfer or not transfer["cells"]:
        return None
    cells = {(on, at): rest for on, at, *rest in transfer["cells"]}
    names = list(dict.fromkeys(name for pair in cells for name in pair))
    return {"names": names, "cells": cells}


def _edits(edits: Sequence[Json]) -> Json:
    """Rows on an axis around 0, and how far it reaches."""
    if not edits:
        return None
    reach = 1.1 * max(0.5, *(abs(end) for _, *ends in edits for end in ends if end is not None))
    rows = [
        (name, value, *(None if end is None else (end / reach + 1) / 2 for end in (value, *ends)))
        for name, value, *ends in edits
    ]
    return {"reach": reach, "rows": rows}
