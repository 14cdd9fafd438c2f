"""The form of an answer: its JSON schema, and from a model's text back to checked values.

Schemas are strict and of the smallest common subset: every field required, no range keywords
(Anthropic answers 400 to `minimum`), and one key per letter, so that constrained decoding can
neither skip nor invent a picture. Ranges are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

from interp.llm.replies.json_text import objects_in
from interp.llm.types import ReplyError

LEVELS = ("mark", "part", "thing", "scene", "style", "other")
VERDICTS = ("single", "several", "unclear")
REGIONS = ("inside", "context", "whole")


_Texts = Annotated[list[str], pydantic.FailFast()]


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


def detect_schema(codes: Sequence[str]) -> dict[str, Any]:
    """Schema of a judge's answer: one integer per letter and nothing else."""
    return _object({code: {"type": "integer"} for code in codes})


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


def parse_scores(text: str, codes: Sequence[str]) -> dict[str, float]:
    """Read a judge's answer: letter -> score in 0..100, in the order of `codes`.

    Whole numbers are the rule. "85%", "85" and 0.85 are taken when all values share that form.
    Raises only `ReplyError` (not_json, wrong_keys, invalid).
    """
    values = _last_with(codes, [_upper(found) for found in objects_in(text)])
    scores = _percent([values[code] for code in codes])
    if scores is None:
        raise ReplyError("invalid", "every letter needs a whole number from 0 to 100")
    for code, score in zip(codes, scores, strict=True):
        if not 0 <= score <= 100:
            raise ReplyError("invalid", f"the score of {code} is outside 0 to 100")
    return dict(zip(codes, scores, strict=True))


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a model's text; the last one where there are several.

    Raises only `ReplyError` (not_json).
    """
    return objects_in(text)[-1]


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(fields),
        "properties": fields,
    }


def _enum(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _last_with(wanted: Sequence[str], found: list[dict[str, Any]]) -> dict[str, Any]:
    """The last object with exactly the wanted keys; the fault is told of the last one."""
    fitting = [values for values in found if values.keys() == set(wanted)]
    if not fitting:
        _same_keys(found[-1], wanted, "the answer")
    return dict(fitting[-1])


def _same_keys(values: Mapping[str, Any], wanted: Sequence[str], what: str) -> None:
    for key in wanted:
        if key not in values:
            raise ReplyError("wrong_keys", f"{what} lacks the key {key!r}")
    extra = sorted(set(values) - set(wanted))
    if extra:
        raise ReplyError("wrong_keys", f"{what} has the unknown key {_clean(extra[0])[:40]!r}")


def _upper(values: Mapping[str, Any]) -> dict[str, Any]:
    """Letters as they were asked: a model may write "a" or "Picture A"."""
    upper = {_letter(key): value for key, value in values.items()}
    if len(upper) != len(values):
        raise ReplyError("wrong_keys", "a letter stands twice in the answer")
    return upper


def _letter(text: str) -> str:
    return text.strip(" :.\t\n").upper().removeprefix("PICTURE").strip()


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


def _clean(text: str) -> str:
    """One line without control characters and without signs that turn the writing direction."""
    return " ".join(_CONTROL.sub("", text).split())


# Blanks (tab, line breaks) stay here: `split` makes one space of them.
_CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)


def _letters(found: Sequence[str], codes: Sequence[str], place: str) -> list[str]:
    letters = list(dict.fromkeys(_letter(letter) for letter in found))
    unknown = [letter for letter in letters if letter not in codes]
    if unknown:
        raise ReplyError(
            "wrong_keys", f"{place} names the unknown letter {_clean(unknown[0])[:40]!r}"
        )
    return letters


def _percent(values: Sequence[Any]) -> list[float] | None:
    """Numbers as 0 to 100 when all share one form; None otherwise. The range is not checked."""
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
