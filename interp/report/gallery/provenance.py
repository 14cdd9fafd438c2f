"""The calls behind labels and scores -> data/pNNNN.js, loaded when one asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from interp.records.types import Explanation, Score
from interp.report.figures import number

Json = Any
ReadCalls = Callable[[Iterable[str]], Mapping[str, Mapping[str, Any]]]
"""Keys in a ledger -> what was asked and answered: created, model, provider, usd, prompt (a list of
texts) and reply. It comes from outside: reports know no ledger."""
N_LETTERS = 20_000
"""Kept of a text."""
Pair = tuple[Explanation | None, Score | None]


def make_provenance(pairs: Sequence[Pair], read: ReadCalls) -> dict[str, Json] | None:
    """A shard's: `texts`, each distinct one once, and for each latent its `calls`: stage, created,
    model, provider, usd, places of the prompt's texts, place of the reply. None without any."""
    asked = [
        [(stage, key) for stage, record in _stages(pair) for key in record.calls] for pair in pairs
    ]
    found = read(list(dict.fromkeys(key for of_latent in asked for _, key in of_latent)))
    if not found:
        return None
    place: dict[str, int] = {}

    def at(text: Any) -> int:
        return place.setdefault(str(text)[:N_LETTERS], len(place))

    calls = [
        [_row(stage, found[key], at) for stage, key in of_latent if key in found]
        for of_latent in asked
    ]
    return {"texts": list(place), "calls": calls}


def _stages(pair: Pair) -> list[tuple[str, Explanation | Score]]:
    named = zip(("explain", "score"), pair, strict=True)
    return [(stage, record) for stage, record in named if record is not None]


def _row(stage: str, call: Mapping[str, Any], at: Callable[[Any], int]) -> list[Json]:
    usd = call["usd"]
    paid = None if usd is None else number(float(usd))
    prompt = [at(text) for text in call["prompt"]]
    about = [str(call[name]) for name in ("created", "model", "provider")]
    return [stage, *about, paid, prompt, at(call["reply"])]
