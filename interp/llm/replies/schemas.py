"""The parts of an answer's JSON schema, and a model's JSON -> checked values.

Schemas are strict and of the smallest common subset: every field required, no range keywords
(Anthropic answers 400 to `minimum`), and one key per letter, so that constrained decoding can
neither skip nor invent a picture. Ranges are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import pydantic

from interp.llm.replies.json_text import json_in, objects_in
from interp.llm.types import ReplyError

Found = TypeVar("Found")

Texts = Annotated[list[str], pydantic.FailFast()]
"""A list of texts; the first that is none ends the check."""


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a model's text; the last one where there are several.

    Raises only `ReplyError` (not_json).
    """
    return objects_in(text)[-1]


def object_schema(fields: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(fields),
        "properties": fields,
    }


def enum_schema(values: Sequence[str]) -> dict[str, Any]:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}


def find_inside(value: Any, read: Callable[[Any], Found | None], depth: int = 2) -> Found | None:
    """What `read` makes of a value, or else of the one value in it that it can read.

    Models wrap an answer in a key, a list or a text. Two values that could be the answer are none.
    """
    found = read(value)
    if found is not None or depth == 0:
        return found
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return None
    parts = [json_in(part) if isinstance(part, str) else part for part in value]
    inner = [find_inside(part, read, depth - 1) for part in parts if isinstance(part, dict | list)]
    fitting = [one for one in inner if one is not None]
    return fitting[0] if len(fitting) == 1 else None


def last_with_keys(
    wanted: Sequence[str], found: list[dict[str, Any]], may_lack: Sequence[str] = ()
) -> dict[str, Any]:
    """The wanted keys of the last object that has them; unknown keys beside them are dropped.

    `may_lack`: those of the wanted keys that it need not have. The fault is told of the last.
    """
    needed = [key for key in wanted if key not in may_lack]

    def take(values: Any) -> dict[str, Any] | None:
        if not isinstance(values, dict):
            return None
        if not values.keys() >= set(needed):  # written as "Second Label"?
            names = [re.sub(r"[\s-]+", "_", key.strip().lower()) for key in values]
            one_each = len(set(names)) == len(names)
            values = dict(zip(names, values.values(), strict=True)) if one_each else {}
        if not values.keys() >= set(needed):
            return None
        return {key: values[key] for key in wanted if key in values}

    fitting = [values for values in (find_inside(one, take) for one in found) if values is not None]
    if not fitting:
        check_keys(found[-1], needed, "the answer")
    return fitting[-1]


def check_keys(values: Mapping[str, Any], wanted: Sequence[str], what: str) -> None:
    """Raises `ReplyError` (wrong_keys) unless all the wanted keys are there; `what` has them."""
    for key in wanted:
        if key not in values:
            raise ReplyError("wrong_keys", f"{what} lacks the key {key!r}")


def read_letter_keys(values: Mapping[str, Any], codes: Sequence[str]) -> dict[str, Any]:
    """Letters as they were asked: a model may write "a" or "Picture A"; other keys stay too."""
    read: dict[str, Any] = {}
    for key, value in values.items():
        letter = read_letter(key)
        if letter in read and letter in codes:
            raise ReplyError("wrong_keys", "a letter stands twice in the answer")
        read[letter] = value
    return read


_CALLED = re.compile(r"^(?:PICTURE|IMAGE|PHOTO|TILE|CELL|PANEL|LETTER)[\s_#:-]*")


def read_letter(text: str) -> str:
    """ "A" for "a", "(A)" and "Picture A"; other texts in upper case."""
    return _CALLED.sub("", text.strip(_MARKS).upper()).strip(_MARKS)


_MARKS = " :.()[]*'\"\t\n"
"""Around a letter."""


def clean(text: str) -> str:
    """One line without control characters and without signs that turn the writing direction."""
    return " ".join(_CONTROL.sub("", text).split())


CleanText = Annotated[str, pydantic.AfterValidator(clean)]
"""A text of an answer, cleaned when it is read."""

# Blanks (tab, line breaks) stay here: `split` makes one space of them.
_CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)


def read_letters(found: Sequence[str], codes: Sequence[str], place: str) -> list[str]:
    """Each letter once, as it was asked. Raises `ReplyError` for one that was not asked."""
    letters = list(dict.fromkeys(read_letter(letter) for letter in found))
    unknown = [letter for letter in letters if letter not in codes]
    if unknown:
        raise ReplyError(
            "wrong_keys", f"{place} names the unknown letter {clean(unknown[0])[:40]!r}"
        )
    return letters


def read_percents(values: Sequence[Any], most: int = 100) -> list[float] | None:
    """Numbers as 0 to `most` when all share one form; None otherwise. The range is not checked.

    Forms: numbers up to `most` (80, "80"), shares up to 1, "85%", and "85/100". Several numbers of
    which the largest is 1 are shares, with `most` 100 also where all are whole: a judge that says
    yes and no.
    """
    read = [number for number in map(_read_number, values) if number is not None]
    if len(read) < len(values) or len({number.form for number in read}) != 1:
        return None
    numbers = [number.value for number in read]
    fractions = [number.value for number in read if not number.is_whole]
    scale = 1.0 if read[0].form == "number" else most / 100
    if read[0].form == "number" and max(numbers) <= 1:
        yes_or_no = most == 100 and max(numbers) == 1 and len(numbers) > 1
        scale = most if fractions or yes_or_no else 1
    elif (
        most == 100 and any(0 < value < 1 for value in fractions) and len(fractions) < len(numbers)
    ):
        return None  # .5 beside 20: a share, or a half of 100?
    return [value * scale + 0.0 for value in numbers]  # + 0.0: no -0.0


class _Number(NamedTuple):
    """A number as it was written."""

    form: Literal["number", "percent", "of"]
    value: float
    is_whole: bool


_WRITTEN = re.compile(
    r"(\d{1,3}(?:\.\d{1,6})?)\s?(%|(?:/|out of)\s?(?:100|10|5|1))?", re.ASCII | re.IGNORECASE
)


def _read_number(value: Any) -> _Number | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        # float() of a number with 4,000 digits overflows
        return _Number("number", float(value) if 0 <= value <= 100 else -1.0, is_whole=True)
    if isinstance(value, float):
        return _Number("number", value, is_whole=False)
    found = _WRITTEN.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    number, unit = float(found[1]), found[2]
    if unit is None or unit == "%":
        return _Number("percent" if unit else "number", number, is_whole="." not in found[1])
    return _Number("of", 100 * number / float(unit.lower().lstrip("/out f")), is_whole=False)
