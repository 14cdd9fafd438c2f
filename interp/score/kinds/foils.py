"""A judge's answer that also grades other labels, the foils: its schema, and the grades in it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from interp.llm.replies.json_text import json_in, list_in, objects_in
from interp.llm.types import ReplyError
from interp.score.answer import detect_schema, parse_scores

TEMPLATE = "detect_foils"
MOST_FOILS = 3
_DEPTH = 3
"""Models wrap an answer in a key, a list or a text."""

Grades = dict[str, float | None]
"""By letter."""


class Graded(NamedTuple):
    """Grades of the label, and of each foil; {} where a foil has none that can be used."""

    own: Grades
    foils: tuple[Grades, ...] = ()


def keys_of(n_foils: int) -> list[str]:
    """Of the foils' lists in an answer; the label itself is rule 1."""
    return [f"rule_{number}" for number in range(2, 2 + n_foils)]


def foils_schema(codes: Sequence[str], n_foils: int) -> dict[str, Any]:
    """As `detect_schema`, and behind the letters a list of numbers for each foil."""
    schema = detect_schema(codes)
    numbers = {"type": "array", "items": {"type": "integer"}}
    fields = {**schema["properties"], **dict.fromkeys(keys_of(n_foils), numbers)}
    return {**schema, "required": list(fields), "properties": fields}


def parse_graded(text: str, codes: Sequence[str], n_foils: int, most: int = 100) -> Graded:
    """Read an answer. Only the label's own grades must be there; raises as `parse_scores`.

    What stands under a foil's key never counts for the label.
    """
    if not n_foils:
        return Graded(parse_scores(text, codes, most))
    keys = keys_of(n_foils)
    found: dict[str, Any] = {}
    whole = list_in(text)
    values = objects_in(text) if whole is None else [whole]
    rest = "\n".join(_dump(_without(value, keys, found)) for value in values)
    own = parse_scores(rest, codes, most)
    return Graded(own, tuple(_grades(found.get(key), codes, most) for key in keys))


def _without(value: Any, keys: Sequence[str], found: dict[str, Any], depth: int = _DEPTH) -> Any:
    """A value less what stands under `keys`, which `found` gets; of two the last."""
    if depth == 0:
        return value
    if isinstance(value, str):
        inner = json_in(value)
        return value if inner is None else _without(inner, keys, found, depth - 1)
    if isinstance(value, list):
        return [_without(part, keys, found, depth - 1) for part in value]
    if not isinstance(value, dict):
        return value
    named = {key: re.sub(r"[\s-]+", "_", key.strip().lower()) for key in value}
    found |= {name: value[key] for key, name in named.items() if name in keys}
    return {
        key: _without(part, keys, found, depth - 1)
        for key, part in value.items()
        if named[key] not in keys
    }


def _grades(value: Any, codes: Sequence[str], most: int) -> Grades:
    try:
        return parse_scores(value if isinstance(value, str) else _dump(value), codes, most)
    except ReplyError:
        return {}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
