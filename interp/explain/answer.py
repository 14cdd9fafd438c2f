"""An explainer's answer: its JSON schema, and from a model's text to checked values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic

from interp.llm.replies.json_text import objects_in
from interp.llm.replies.schemas import (
    _clean,
    _enum,
    _last_with,
    _letters,
    _object,
    _percent,
    _same_keys,
    _Texts,
    _upper,
)
from interp.llm.types import ReplyError

LEVELS = ("mark", "part", "thing", "scene", "style", "other")


VERDICTS = ("single", "several", "unclear")


REGIONS = ("inside", "context", "whole")


class Candidate(pydantic.BaseModel):
    """One possible answer, and the letters of the first set that it fits."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    level: Literal["mark", "part", "thing", "scene", "style", "other"]
    text: str
    fits: _Texts


class ExplainAnswer(pydantic.BaseModel):
    """What the explainer said, checked. `second_set` and `region` are "" when not asked for."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    seen: dict[str, str]
    candidates: Annotated[list[Candidate], pydantic.FailFast()]
    second_set: str = ""
    region: Literal["inside", "context", "whole", ""] = ""
    verdict: Literal["single", "several", "unclear"]
    label: str
    second_label: str | None
    level: Literal["mark", "part", "thing", "scene", "style", "other"]
    description: str
    exceptions: _Texts
    confidence: int
    """0 to 100; stored, never used to filter (models are overconfident)."""


def explain_schema(
    codes: Sequence[str], neg_codes: Sequence[str] = (), *, region: bool = False
) -> dict[str, Any]:
    """Schema of the explainer's answer; evidence fields stand before the label on purpose."""
    letters = {"type": "array", "items": {"type": "string", "enum": list(codes)}}
    text = {"type": "string"}
    candidate = _object({"level": _enum(LEVELS), "text": text, "fits": letters})
    fields: dict[str, Any] = {
        "seen": _object(dict.fromkeys(codes, text)),
        **({"second_set": text} if neg_codes else {}),
        **({"region": _enum(REGIONS)} if region else {}),
        "candidates": {"type": "array", "items": candidate},
        "verdict": _enum(VERDICTS),
        "label": text,
        "second_label": {"type": ["string", "null"]},
        "level": _enum(LEVELS),
        "description": text,
        "exceptions": letters,
        "confidence": {"type": "integer"},
    }
    return _object(fields)


def parse_explain(
    text: str, codes: Sequence[str], neg_codes: Sequence[str] = (), *, region: bool = False
) -> ExplainAnswer:
    """Read an explainer's answer. Raises only `ReplyError` (not_json, wrong_keys, invalid)."""
    wanted = explain_schema(codes, neg_codes, region=region)["required"]
    values = _last_with(wanted, objects_in(text))
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
    seen = _upper(seen)
    _same_keys(seen, codes, "`seen`")
    return {code: seen[code] for code in codes}


def _confidence(value: Any) -> int:
    """0.8, "80%" and 80 mean the same here: it is shown, and decides nothing."""
    percent = _percent([value])
    if percent is None or not 0 <= percent[0] <= 100:
        raise ReplyError("invalid", "`confidence` is no whole number from 0 to 100")
    return round(percent[0])


def _checked(answer: ExplainAnswer, codes: Sequence[str]) -> ExplainAnswer:
    label = _clean(answer.label)
    if not any(character.isalnum() for character in label):
        raise ReplyError("invalid", "`label` is empty")
    candidates = [
        candidate.model_copy(
            update={
                "text": _clean(candidate.text),
                "fits": _letters(candidate.fits, codes, "`fits`"),
            }
        )
        for candidate in answer.candidates
    ]
    return answer.model_copy(
        update={
            "seen": {code: _clean(note) for code, note in answer.seen.items()},
            "candidates": candidates,
            "second_set": _clean(answer.second_set),
            "label": label,
            "second_label": _clean(answer.second_label or "") or None,
            "description": _clean(answer.description),
            "exceptions": _letters(answer.exceptions, codes, "`exceptions`"),
        }
    )
