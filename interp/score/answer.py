"""A judge's answer: its JSON schema, and a model's text -> scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from interp.llm.replies.json_text import list_in, objects_in
from interp.llm.replies.schemas import (
    check_keys,
    clean,
    find_inside,
    object_schema,
    read_letter,
    read_letter_keys,
    read_percents,
)
from interp.llm.types import ReplyError

_GRADES = ("grade", "score", "rating", "value", "fit", "percent", "percentage")
"""Keys that models give a grade where the letter is a value of its own."""
_ANSWERS = ("answer", "result", "output", "response")
"""Keys around a list of grades."""
_LETTERS = ("image", "picture", "letter", "id", "name", "tile", "label", "key")
_SILENT = ("", "null", "none", "n/a", "na", "unknown", "?", "-")
"""Texts in place of a number that say nothing, in lower case."""


def detect_schema(codes: Sequence[str]) -> dict[str, Any]:
    """Schema of a judge's answer: one integer per letter and nothing else."""
    return object_schema({code: {"type": "integer"} for code in codes})


def parse_scores(text: str, codes: Sequence[str], most: int = 100) -> dict[str, float | None]:
    """Read a judge's answer: letter -> score in 0..`most`, in the order of `codes`; None: not said.

    Whole numbers under their letters are the rule; other forms (`read_percents`), {"A": {"grade":
    80}}, a list of {image, grade}, and a list of numbers in order that is all of the answer are
    taken too. At least half of the letters must have a number, and a letter that was not asked
    counts for nothing, unless one is missing: then letters may have slipped. Raises only
    `ReplyError` (not_json, wrong_keys, invalid).
    """
    values = _letters_in(text, codes)
    said = {code: grade for code in codes if not _is_silent(grade := _grade(values.get(code)))}
    unknown = [key for key in values if len(key) == 1 and key.isalpha() and key not in codes]
    if unknown and not set(codes) <= values.keys():
        raise ReplyError("wrong_keys", f"the answer has the unknown letter {clean(unknown[0])!r}")
    if not said or 2 * len(said) < len(codes):
        check_keys(values, codes, "the answer")
        raise ReplyError("invalid", "most letters have no number")
    scores = read_percents(list(said.values()), most)
    if scores is None:
        raise ReplyError("invalid", f"every letter needs a whole number from 0 to {most}")
    read = dict(zip(said, scores, strict=True))
    for code, score in read.items():
        if not 0 <= score <= most:
            raise ReplyError("invalid", f"the score of {code} is outside 0 to {most}")
    return {code: read.get(code) for code in codes}


def _letters_in(text: str, codes: Sequence[str]) -> dict[str, Any]:
    """Letter -> what was said of it; of the last that has all letters, or else what there is."""
    whole = list_in(text)
    if whole is not None:
        whole_read = _in_order(whole, codes) or find_inside(whole, partial(_read_letters, codes))
        if whole_read is not None:
            return whole_read
    found = objects_in(text)
    read = [find_inside(value, partial(_read_letters, codes)) for value in found]
    read.insert(0, _read_entries(found, codes))  # of pieces all must be there: one may be broken
    complete = [values for values in read if values is not None and set(codes) <= values.keys()]
    best = complete[-1] if complete else read[-1]
    return read_letter_keys(found[-1], codes) if best is None else best


def _read_letters(codes: Sequence[str], value: Any) -> dict[str, Any] | None:
    """Letter -> what was said of it, if this is the object or the list that says it."""
    if isinstance(value, list):
        return _read_entries(value, codes)
    letters = read_letter_keys(value, codes)
    if any(code in letters and _is_number(_grade(letters[code])) for code in codes):
        return letters
    named = [part for key, part in value.items() if _is_named(key, (*_GRADES, *_ANSWERS))]
    lists = [part for part in named if isinstance(part, list)]
    return _in_order(lists[0], codes) if len(lists) == 1 else None


def _in_order(values: Sequence[Any], codes: Sequence[str]) -> dict[str, Any] | None:
    """From a number for each letter. 2, 1, 3 are refused: they may be places in a ranking."""
    n = len(codes)
    if len(values) != n or not all(map(_is_number, values)):
        return None
    grades = [grade for grade in values if not _is_silent(grade)]
    ranks = ([float(place + first) for place in range(n)] for first in (0, 1))
    if n > 1 and sorted(read_percents(grades) or ()) in ranks:
        return None
    return dict(zip(codes, values, strict=True))


def _read_entries(values: Sequence[Any], codes: Sequence[str]) -> dict[str, Any] | None:
    """From [{"image": "A", "grade": 80}, ...], [{"A": 80}, ...] and [["A", 80], ...]."""
    read: dict[str, Any] = {}
    for value in values:
        pair = _read_entry(value)
        if pair is None:
            return None
        if pair[0] in read:
            raise ReplyError("wrong_keys", "a letter stands twice in the answer")
        read[pair[0]] = pair[1]
    return read if read.keys() & set(codes) else None


def _read_entry(value: Any) -> tuple[str, Any] | None:
    if isinstance(value, list):
        value = {"letter": value[0], "grade": value[1]} if len(value) == 2 else {}
    if not isinstance(value, dict):
        return None
    if len(value) == 1:
        ((key, grade),) = value.items()
        return (read_letter(key), grade) if _is_letter(key) else None
    letters = [key for key in value if _is_named(key, _LETTERS) and _is_letter(value[key])]
    if len(letters) != 1:
        return None
    others = {key: part for key, part in value.items() if key != letters[0]}
    return read_letter(value[letters[0]]), others


def _grade(value: Any) -> Any:
    """The number in {"grade": 80, "why": ...}; what is no such object stays as it is."""
    for _ in range(2):
        if not isinstance(value, dict):
            break
        named = [part for key, part in value.items() if _is_named(key, _GRADES)]
        parts = named or [part for part in value.values() if _is_number(part)]
        value = parts[0] if len(parts) == 1 else math.nan  # two numbers: which is it?
    return value


def _is_named(key: str, names: Sequence[str]) -> bool:
    return key.strip().lower().removesuffix("s") in names


def _is_letter(text: Any) -> bool:
    return isinstance(text, str) and len(read_letter(text)) == 1 and read_letter(text).isalpha()


def _is_number(value: Any) -> bool:
    return _is_silent(value) or read_percents([value]) is not None


def _is_silent(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _SILENT)
