"""The form of an answer: its JSON schema, and from a model's text back to checked values.

Schemas are strict and of the smallest common subset: every field required, no range keywords
(Anthropic answers 400 to `minimum`), and one key per letter, so that constrained decoding can
neither skip nor invent a picture. Ranges are checked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import pydantic

from interp.questions import ReplyError

LEVELS = ("mark", "part", "thing", "scene", "style", "other")
VERDICTS = ("single", "several", "unclear")
REGIONS = ("inside", "context", "whole")

_LONGEST_REPAIR = 20_000
"""Characters. Real answers are a quarter of it; what is longer is garbage and not worth mending."""


class Candidate(pydantic.BaseModel):
    """One possible answer, and the letters of the first set that it fits."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    level: Literal["mark", "part", "thing", "scene", "style", "other"]
    text: str
    fits: list[str]


class ExplainAnswer(pydantic.BaseModel):
    """What the explainer said, checked. `second_set` and `region` are "" when not asked for."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    seen: dict[str, str]
    candidates: list[Candidate]
    second_set: str = ""
    region: Literal["inside", "context", "whole", ""] = ""
    verdict: Literal["single", "several", "unclear"]
    label: str
    second_label: str | None
    level: Literal["mark", "part", "thing", "scene", "style", "other"]
    description: str
    exceptions: list[str]
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
    values = parse_object(text)
    _same_keys(values, explain_schema(codes, neg_codes, region=region)["required"], "the answer")
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
    values = _upper(parse_object(text))
    _same_keys(values, codes, "the answer")
    forms = {_form(value) for value in values.values()}
    if len(forms) != 1 or None in forms:
        raise ReplyError("invalid", "every letter needs a whole number from 0 to 100")
    numbers = {code: _number(values[code]) for code in codes}
    times = 100 if forms == {"float"} and max(numbers.values()) <= 1 else 1
    scores = {code: number * times for code, number in numbers.items()}
    wrong = [code for code, score in scores.items() if not 0 <= score <= 100]
    if wrong:
        raise ReplyError("invalid", f"the score of {wrong[0]} is outside 0 to 100")
    return scores


def parse_object(text: str) -> dict[str, Any]:
    """The outermost JSON object in a model's text, after at most one mechanical repair.

    Byte-order mark, code fences and prose around it are dropped. Raises only `ReplyError`.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ReplyError("not_json", "no JSON object in the answer")
    body = text[start : end + 1]
    try:
        return _load(body)
    except (ValueError, RecursionError):
        if len(body) > _LONGEST_REPAIR:
            raise ReplyError("not_json", "the answer is no valid JSON") from None
    try:
        return _load(_mended(body))
    except (ValueError, RecursionError):
        raise ReplyError("not_json", "the answer is no valid JSON") from None


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(fields),
        "properties": fields,
    }


def _enum(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _load(body: str) -> dict[str, Any]:
    value = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if "\\u" in body:  # half of a surrogate pair is no text: it could never be written to a file
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


# A string with its end, or up to the end of the text (so that no position is tried twice: the
# whole stays linear), or a comma before a closing bracket.
_STRING_OR_COMMA = re.compile(
    r""" "(?:[^"\\]|\\.)*+ (?:"|\\?\Z) | '(?:[^'\\]|\\.)*+ (?:'|\\?\Z) | ,(?=\s*+[}\]]) """,
    re.VERBOSE | re.DOTALL,
)


def _mended(body: str) -> str:
    return _STRING_OR_COMMA.sub(_mend, body)


def _mend(match: re.Match[str]) -> str:
    found = match.group()
    if found == ",":
        return ""
    if found[0] == '"':
        return found
    inner = found[1:].removesuffix("'").replace("\\'", "'")
    return '"' + re.sub(r'(?<!\\)"', r"\"", inner) + '"'


def _same_keys(values: dict[str, Any], wanted: Sequence[str], what: str) -> None:
    for key in wanted:
        if key not in values:
            raise ReplyError("wrong_keys", f"{what} lacks the key {key!r}")
    extra = sorted(set(values) - set(wanted))
    if extra:
        raise ReplyError("wrong_keys", f"{what} has the unknown key {extra[0][:40]!r}")


def _upper(values: dict[str, Any]) -> dict[str, Any]:
    upper = {key.strip().upper(): value for key, value in values.items()}
    if len(upper) != len(values):
        raise ReplyError("wrong_keys", "a letter stands twice in the answer")
    return upper


def _checked(answer: ExplainAnswer, codes: Sequence[str]) -> ExplainAnswer:
    seen = _upper(answer.seen)
    _same_keys(seen, codes, "`seen`")
    if not answer.label.strip():
        raise ReplyError("invalid", "`label` is empty")
    if not 0 <= answer.confidence <= 100:
        raise ReplyError("invalid", "`confidence` is outside 0 to 100")
    candidates = [
        c.model_copy(update={"fits": _letters(c.fits, codes, "`fits`")}) for c in answer.candidates
    ]
    exceptions = _letters(answer.exceptions, codes, "`exceptions`")
    return answer.model_copy(
        update={"seen": seen, "candidates": candidates, "exceptions": exceptions}
    )


def _letters(found: Sequence[str], codes: Sequence[str], place: str) -> list[str]:
    letters = [letter.strip().upper() for letter in found]
    unknown = [letter for letter in letters if letter not in codes]
    if unknown:
        raise ReplyError("wrong_keys", f"{place} names the unknown letter {unknown[0][:40]!r}")
    return letters


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
