"""A judge's answer: its JSON schema, and a model's text -> scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.llm.replies.json_text import objects_in
from interp.llm.replies.schemas import (
    last_with_keys,
    object_schema,
    read_letter_keys,
    read_percents,
)
from interp.llm.types import ReplyError


def detect_schema(codes: Sequence[str]) -> dict[str, Any]:
    """Schema of a judge's answer: one integer per letter and nothing else."""
    return object_schema({code: {"type": "integer"} for code in codes})


def parse_scores(text: str, codes: Sequence[str]) -> dict[str, float]:
    """Read a judge's answer: letter -> score in 0..100, in the order of `codes`.

    Whole numbers are the rule. "85%", "85" and 0.85 are taken when all values share that form.
    Raises only `ReplyError` (not_json, wrong_keys, invalid).
    """
    values = last_with_keys(codes, [read_letter_keys(found) for found in objects_in(text)])
    scores = read_percents([values[code] for code in codes])
    if scores is None:
        raise ReplyError("invalid", "every letter needs a whole number from 0 to 100")
    for code, score in zip(codes, scores, strict=True):
        if not 0 <= score <= 100:
            raise ReplyError("invalid", f"the score of {code} is outside 0 to 100")
    return dict(zip(codes, scores, strict=True))
