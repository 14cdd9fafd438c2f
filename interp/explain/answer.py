"""An explainer's answer: its JSON schema, and a model's text -> checked values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import pydantic

from interp.llm.replies.json_text import objects_in
from interp.llm.replies.schemas import (
    CleanText,
    Texts,
    check_keys,
    enum_schema,
    last_with_keys,
    object_schema,
    read_letter_keys,
    read_letters,
    read_percents,
)
from interp.llm.types import ReplyError

Level = Literal["mark", "part", "thing", "scene", "style", "other"]
Verdict = Literal["single", "several", "unclear"]
Region = Literal["inside", "context", "whole"]
Domain = Literal["bound", "any"]
"""Whether only the kind of image that the latent responds to can have the property."""

_NAMED = pydantic.BeforeValidator(lambda v: v.strip().lower() if isinstance(v, str) else v)
"""Names as they were asked for: a model may write "Single"."""
_LISTED = pydantic.BeforeValidator(lambda v: [] if v is None else v)
_MAY_LACK = ("second_label", "exceptions", "domain")
"""Keys that models leave out where they have nothing to say."""


class Candidate(pydantic.BaseModel):
    """One possible answer, and the letters of the first set that it fits."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)
    level: Annotated[Level, _NAMED]
    text: CleanText
    fits: Annotated[Texts, _LISTED]


class ExplainAnswer(pydantic.BaseModel):
    """What the explainer said, checked. `second_set`, `region` and `domain` are "" when not asked
    for."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    seen: dict[str, CleanText]
    candidates: Annotated[list[Candidate], pydantic.FailFast()]
    second_set: CleanText = ""
    region: Annotated[Literal[Region, ""], _NAMED] = ""
    domain: Annotated[Literal[Domain, ""], _NAMED] = ""
    verdict: Annotated[Verdict, _NAMED]
    label: CleanText
    second_label: CleanText | None = None
    level: Annotated[Level, _NAMED]
    description: CleanText
    exceptions: Annotated[Texts, _LISTED] = []
    confidence: int
    """0 to 100; stored, never used to filter (models are overconfident)."""


def explain_schema(
    codes: Sequence[str],
    neg_codes: Sequence[str] = (),
    *,
    region: bool = False,
    bound: bool = False,
) -> dict[str, Any]:
    """Schema of the explainer's answer; evidence fields stand before the label on purpose.

    `bound`: nearly all of the latent's images are of one domain.
    """
    letters = {"type": "array", "items": {"type": "string", "enum": list(codes)}}
    text = {"type": "string"}
    level = enum_schema(get_args(Level))
    candidate = object_schema({"level": level, "text": text, "fits": letters})
    fields: dict[str, Any] = {
        "seen": object_schema(dict.fromkeys(codes, text)),
        **({"second_set": text} if neg_codes else {}),
        **({"region": enum_schema(get_args(Region))} if region else {}),
        "candidates": {"type": "array", "items": candidate},
        **({"domain": enum_schema(get_args(Domain))} if bound else {}),
        "verdict": enum_schema(get_args(Verdict)),
        "label": text,
        "second_label": {"type": ["string", "null"]},
        "level": level,
        "description": text,
        "exceptions": letters,
        "confidence": {"type": "integer"},
    }
    return object_schema(fields)


def parse_explain(
    text: str,
    codes: Sequence[str],
    neg_codes: Sequence[str] = (),
    *,
    region: bool = False,
    bound: bool = False,
) -> ExplainAnswer:
    """Read an explainer's answer. Raises only `ReplyError` (not_json, wrong_keys, invalid)."""
    wanted = explain_schema(codes, neg_codes, region=region, bound=bound)["required"]
    values = last_with_keys(wanted, objects_in(text), _MAY_LACK)
    values["seen"] = _seen(values["seen"], codes)
    values["confidence"] = _confidence(values["confidence"])
    try:
        answer = ExplainAnswer.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReplyError("invalid", f"{place[:60]}: {first['msg'][:120]}") from None
    return _checked(answer, codes)


def _seen(seen: Any, codes: Sequence[str]) -> dict[str, Any]:
    if not isinstance(seen, dict):
        raise ReplyError("invalid", "`seen` is no object with one text for every letter")
    seen = read_letter_keys(seen, codes)
    check_keys(seen, codes, "`seen`")
    return {code: seen[code] for code in codes}


def _confidence(value: Any) -> int:
    """0.8, "80%" and 80 mean the same here: it is shown, and decides nothing."""
    percent = read_percents([value])
    if percent is None or not 0 <= percent[0] <= 100:
        raise ReplyError("invalid", "`confidence` is no whole number from 0 to 100")
    return round(percent[0])


def _checked(answer: ExplainAnswer, codes: Sequence[str]) -> ExplainAnswer:
    if not any(character.isalnum() for character in answer.label):
        raise ReplyError("invalid", "`label` is empty")
    candidates = [
        candidate.model_copy(update={"fits": read_letters(candidate.fits, codes, "`fits`")})
        for candidate in answer.candidates
    ]
    return answer.model_copy(
        update={
            "candidates": candidates,
            "second_label": answer.second_label or None,
            "exceptions": read_letters(answer.exceptions, codes, "`exceptions`"),
        }
    )
