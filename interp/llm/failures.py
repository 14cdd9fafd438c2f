"""Why there are no usable answers -> the commonest reasons, and what to do about each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from interp.llm.types import is_transient

_LONGEST = 500
"""Characters of a server's words that are kept."""
_AGAIN = "the same command asks again"
_REMEDIES = {
    "rate_limit": "lower --concurrency or wait",
    "in_flight": "lower --concurrency or wait",
    "timeout": "raise --timeout",
    "empty": "try --reasoning none, or another --model",
    "not_json": "another --model may keep to the form",
    "wrong_keys": "another --model may keep to the form",
    "invalid": "another --model may keep to the form",
    "truncated": "give more room with --max-tokens, or have less thought with --reasoning low",
    "refused": "another --model may answer",
    "moderated": "another --model or --provider may answer",
    "forbidden": "see what the key may do",
    "bad_request": "mend what the server says, or choose another --model or --layout",
}


class Reason(NamedTuple):
    """One reason and how often it was met."""

    kind: str
    words: str
    """Of the server, or of the reader of its answer; "" where nothing was kept."""
    n: int

    @property
    def remedy(self) -> str:
        """What to do, ending with how to ask again."""
        again = _AGAIN if is_transient(self.kind) else "--retry-failed asks again"
        first = _REMEDIES.get(self.kind)
        return f"{first}; {again}" if first else again


def commonest(failures: Iterable[tuple[str, str]], most: int = 3) -> list[Reason]:
    """From (kind, words) of each failure; words that differ in numbers and ids only are one."""
    counts: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for kind, words in failures:
        shape = kind, re.sub(r"\b\w*\d[\w.,:-]*", "#", words)
        counts[shape] += 1
        example.setdefault(shape, words)
    return [Reason(shape[0], example[shape], n) for shape, n in counts.most_common(most)]


def scrub(words: str) -> str:
    """A server's words as they may be kept: one line without keys, logins and files."""
    words = re.sub(r"(?i)\b(?:bearer\s+|sk-|pk-|key-)[\w.~+/=-]{8,}", "[key]", words)
    words = re.sub(r"://[^\s/@]+@", "://", words)
    words = re.sub(r"[A-Za-z0-9+/=_-]{120,}", "[...]", words)
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())[:_LONGEST]
