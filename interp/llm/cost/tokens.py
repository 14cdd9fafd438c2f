"""What a request costs in tokens before it is sent: expected, and at the very most."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from interp.llm.cost.image_tokens import family_of
from interp.llm.types import Question

Size = tuple[int, int]
"""(width, height) in pixels."""

EXPLAIN_ANSWER = 440
"""Tokens of an explanation."""
LETTER_ANSWER = 8
"""Tokens of one letter's score: 6 to 7 by o200k_base, more where each digit is a token."""
LISTED_ANSWER = 4
"""Tokens of a score in a list: 3 by the rule of o200k_base (number, comma, blank), 4 or more where
each digit is a token."""

_SCHEMA_CHARACTERS = 2.8
"""Of a JSON schema to a token; ours are 2.8 to 2.9 by o200k_base. Servers that only restrict the
decoding bill none of it."""
_PICTURE_MARGIN = 3
"""Bills differ from documented formulas by up to twice; what is beyond must be learned."""
_WORDS_OF_FORM = 200
"""Bytes that asking for JSON in words adds, besides the schema."""
_TIE = 1.01


class Tokens(NamedTuple):
    """Expected prompt tokens of one request."""

    text: float
    """Text, schema, and what the model adds to every call."""
    pictures: float
    """All pictures together."""

    @property
    def total(self) -> float:
        return self.text + self.pictures


def picture_tokens(model: str, size: Size) -> int:
    """Tokens of one picture, as the model's family is billed; a cautious guess where unknown."""
    return round(_exact(model, size))


def prompt_tokens(question: Question, model: str) -> Tokens:
    """Expected. Text is good to about 15%, pictures to what their rule is (`image_tokens`)."""
    family = family_of(model)
    schema = 0 if question.schema is None else len(json.dumps(question.schema))
    text = len(_text(question)) / family.characters + schema / _SCHEMA_CHARACTERS
    pictures = sum(_exact(model, picture.size) for picture in question.pictures)
    return Tokens(text + family.per_call, pictures)


def most_tokens(question: Question, model: str) -> int:
    """An upper bound to reserve money by: a token is at least a byte of text.

    It holds unless a host counts pictures otherwise than its family, which its first bill shows.
    """
    schema = 0 if question.schema is None else len(json.dumps(question.schema))
    n_bytes = len(_text(question).encode("utf-8", "replace")) + schema + _WORDS_OF_FORM
    pictures = sum(_exact(model, picture.size) for picture in question.pictures)
    margin = math.ceil(_PICTURE_MARGIN * (pictures + family_of(model).per_call))
    return n_bytes + margin


def answer_tokens(question: Question) -> int:
    """Expected completion tokens, without any reasoning; never above `max_tokens`."""
    expected = question.max_tokens
    if question.schema_name == "explain":
        expected = EXPLAIN_ANSWER
    elif question.schema_name in ("detect", "detect_foils") and question.schema is not None:
        fields = question.schema["properties"].values()
        n_lists = sum(field["type"] == "array" for field in fields)
        n_letters = len(fields) - n_lists
        expected = LETTER_ANSWER * len(fields) + LISTED_ANSWER * n_letters * n_lists
    return min(expected, question.max_tokens)


def cheaper_layout(
    model: str, grids: Sequence[Size], singles: Sequence[Size]
) -> Literal["grid", "separate"]:
    """Which the model bills less for the same images: as `grids`, or one by one as `singles`.

    A tie (within 1%) goes to separate images: models read stitched ones worse (GPT-4o found 97%
    among ten separate images and 27% among ten 4 x 4 grids; MMNeedle). What is unknown stays a
    grid: it has the fewest pictures, and servers limit their number.
    """
    if not family_of(model).known:
        return "grid"
    as_grids = sum(_exact(model, size) for size in grids)
    as_singles = sum(_exact(model, size) for size in singles)
    return "separate" if as_singles <= _TIE * as_grids else "grid"


@lru_cache(maxsize=4096)
def _exact(model: str, size: Size) -> float:
    return family_of(model).rule.tokens(*size)


def _text(question: Question) -> str:
    return question.system + "".join(part for part in question.parts if isinstance(part, str))
