"""The calls behind a label and its score -> what its stand-alone card tells of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from interp.records.wording import cut_at_word
from interp.report.gallery.provenance import Pair, ReadCalls, make_provenance

MOST_LETTERS = 4000
"""Of a prompt or a reply."""
STAGES = {"explain": "Explainer", "score": "Scorer"}


class Call(NamedTuple):
    """A question and its answer."""

    about: str
    """Who was asked, where and when, and what it cost."""
    prompt: str
    """"" where it is that of the call before."""
    reply: str


class Calls(NamedTuple):
    """Of one latent."""

    shown: list[Call]
    n_more: int
    """That found no room."""


def read_shown(pair: Pair, read: ReadCalls, n_letters: int) -> Calls:
    """The first calls, as many as `n_letters` have room for."""
    found: dict[str, Any] = make_provenance([pair], read) or {"texts": [], "calls": [[]]}
    texts, [rows] = found["texts"], found["calls"]
    shown: list[Call] = []
    before, left = None, n_letters
    for stage, created, model, provider, usd, places, reply in rows:
        prompt = "" if places == before else _cut("\n\n".join(texts[at] for at in places))
        before = places
        paid = "" if usd is None else f"${usd:.2g}"
        whose = " at ".join(filter(None, (model, provider)))
        about = " · ".join(filter(None, (STAGES.get(stage, stage), whose, paid, created)))
        call = Call(about, prompt, _cut(texts[reply]) or "(empty)")
        left -= sum(map(len, call))
        if left < 0:
            break
        shown.append(call)
    return Calls(shown, len(rows) - len(shown))


def _cut(text: str) -> str:
    return cut_at_word(text, MOST_LETTERS)
