"""The parts of an answer's JSON schema, and a model's JSON -> checked values.

Schemas are strict and of the smallest common subset: every field required, no range keywords
(Anthropic answers 400 to `minimum`), and one key per letter, so that constrained decoding can
neither skip nor invent a picture. Ranges are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic

from interp.llm.replies.json_text import objects_in
from interp.llm.types import ReplyError

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


def last_with_keys(wanted: Sequence[str], found: list[dict[str, Any]]) -> dict[str, Any]:
    """The last object with exactly the wanted keys; the fault is told of the last one."""
    fitting = [values for values in found if values.keys() == set(wanted)]
    if not fitting:
        check_keys(found[-1], wanted, "the answer")
    return dict(fitting[-1])


def check_keys(values: Mapping[str, Any], wanted: Sequence[str], what: str) -> None:
    """Raises `ReplyError` (wrong_keys) unless the keys are the wanted ones; `what` has them."""
    for key in wanted:
        if key not in values:
            raise ReplyError("wrong_keys", f"{what} lacks the key {key!r}")
    extra = sorted(set(values) - set(wanted))
    if extra:
        raise ReplyError("wrong_keys", f"{what} has the unknown key {clean(extra[0])[:40]!r}")


def read_letter_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Letters as they were asked: a model may write "a" or "Picture A"."""
    upper = {_read_letter(key): value for key, value in values.items()}
    if len(upper) != len(values):
        raise ReplyError("wrong_keys", "a letter stands twice in the answer")
    return upper


def _read_letter(text: str) -> str:
    return text.strip(" :.\t\n").upper().removeprefix("PICTURE").strip()


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
    letters = list(dict.fromkeys(_read_letter(letter) for letter in found))
    unknown = [letter for letter in letters if letter not in codes]
    if unknown:
        raise ReplyError(
            "wrong_keys", f"{place} names the unknown letter {clean(unknown[0])[:40]!r}"
        )
    return letters


def read_percents(values: Sequence[Any]) -> list[float] | None:
    """Numbers as 0 to 100 when all share one form; None otherwise. The range is not checked.

    Forms: whole numbers, shares up to 1, "85%" and "85".
    """
    forms = {_form(value) for value in values}
    if len(forms) != 1 or None in forms:
        return None
    numbers = [_number(value) for value in values]
    is_share = forms == {"float"} and max(numbers) <= 1
    return [number * (100 if is_share else 1) + 0.0 for number in numbers]  # + 0.0: no -0.0


def _form(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return type(value).__name__
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}\s?%", value.strip(), re.ASCII):
        return "percent"
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}", value.strip(), re.ASCII):
        return "text"
    return None


def _number(value: Any) -> float:
    if isinstance(value, int) and not 0 <= value <= 100:
        return -1.0  # float() of a number with 4,000 digits overflows
    return float(value.strip(" %") if isinstance(value, str) else value)
