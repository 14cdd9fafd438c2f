"""The JSON in what a model wrote: thoughts, fences, prose and small slips around it.

Everything is linear in the length of the text, and nothing but `ReplyError` is raised.
"""

from __future__ import annotations

import json
import re
from typing import Any

from interp.llm.types import ReplyError

_LONGEST = 20_000
"""Characters. Real answers are a quarter of it; what is longer is garbage and not worth reading."""
_MOST_OBJECTS = 32
"""Pieces of a text that are looked at when it is not one object."""
_MOST_REPAIRS = 1000
"""Strings, comments and commas that a repair looks at; real answers have a tenth of it."""


def objects_in(text: str) -> list[dict[str, Any]]:
    """At least one object: all that the answer is, or else those that stand in it, in order.

    What a model thought aloud before its answer does not count. The text from the first "{" to the
    last "}" is taken as it is or after one mechanical repair; when that is no JSON, each object
    that stands by itself counts, so that braces in prose and a second version do no harm. What
    stands inside of a broken object never counts. Raises only `ReplyError` (not_json).
    """
    text = without_thoughts(_unquoted(text))
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ReplyError("not_json", "no JSON object in the answer")
    if end - start >= _LONGEST:
        raise ReplyError("not_json", f"the answer is over {_LONGEST:,} characters")
    body = text[start : end + 1]
    try:
        return [_object(body)]
    except (ValueError, RecursionError) as error:
        twice = isinstance(error, _TwiceError)
    found = _mended(body) or _pieces(body)
    if not found:
        raise ReplyError("not_json", "a key stands twice" if twice else "this is no valid JSON")
    return found


def list_in(text: str) -> list[Any] | None:
    """The list that is all of an answer, but for thoughts and a fence; None for any other answer.

    Numbers in brackets also stand in prose: beside other words a list is not trusted.
    """
    body = without_thoughts(_unquoted(text)).strip(_AROUND).removeprefix("json").lstrip()
    if body[:1] != "[" or body[-1:] != "]" or len(body) > _LONGEST:
        return None
    for form in (body, _SLIP.sub(_mend, body, count=_MOST_REPAIRS)):
        values = json_in(form)
        if isinstance(values, list):
            return values
    return None


def json_in(text: str) -> Any:
    """The JSON object or list that a text is as a whole; None for any other text."""
    if text.lstrip(_AROUND)[:1] not in ("{", "[") or len(text) > _LONGEST:
        return None
    try:
        return _load(text)
    except (ValueError, RecursionError):
        return None


def _unquoted(text: str) -> str:
    """JSON that was written as a JSON text once more."""
    bare = text.strip()
    if bare[:1] != '"' or bare[-1:] != '"' or len(bare) > 2 * _LONGEST:
        return text
    try:
        inner = json.loads(bare, strict=False)
    except (ValueError, RecursionError):
        return text
    return inner if isinstance(inner, str) else text


_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning)>", re.IGNORECASE)
_THOUGHT_START = re.compile(r"\s*<(?:think|thinking|thought|thoughts|reasoning)>", re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """What stands behind what a model thought aloud; "" where only thoughts are.

    Some templates open the thought in the prompt: then only its end is in the text.
    """
    before_answer = text.find("{")
    ends = [found.end() for found in _THOUGHT_END.finditer(text)]
    if _THOUGHT_START.match(text):
        return text[ends[-1] :] if ends else ""
    if ends and text[:before_answer].strip(_AROUND) not in ("", "json"):
        return text[ends[-1] :]
    return text


_AROUND = "\ufeff` \t\r\n"
"""What may stand before an answer that has no thoughts."""


class _TwiceError(ValueError):
    """A key stands twice: which of the two was meant?"""


def _object(body: str) -> dict[str, Any]:
    value = _load(body)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _load(body: str) -> Any:
    # Not strict: a line break inside of a string is a slip that loses nothing.
    value = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant, strict=False)
    if "\\u" in body:  # half of a surrogate pair is no text: it could never be written to a file
        json.dumps(value, ensure_ascii=False).encode()
    elif not body.isascii():
        body.encode()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _TwiceError
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _pieces(body: str) -> list[dict[str, Any]]:
    """The objects side by side in a text, from its first "{" on."""
    found: list[dict[str, Any]] = []
    start = 0
    for _ in range(_MOST_OBJECTS):
        end = _end_of_object(body, start)
        if end is None:
            return []
        piece = body[start:end]
        values = _loaded(piece) or _mended(piece)
        # A broken object may have been meant to replace those before it; "{letter}" was not.
        found = [] if not values and '"' in piece else found + values
        start = body.find("{", end)
        if start < 0:
            return found
    return []


def _end_of_object(body: str, start: int) -> int | None:
    """Behind the object that begins at `start`, or behind the flat {...} there; None for neither.

    A broken object with others inside has no end that could be trusted.
    """
    try:
        return json.JSONDecoder(strict=False).raw_decode(body, start)[1]
    except (ValueError, RecursionError):
        close, inner = body.find("}", start), body.find("{", start + 1)
    return close + 1 if close >= 0 and not 0 <= inner < close else None


def _loaded(piece: str) -> list[dict[str, Any]]:
    try:
        return [_object(piece)]
    except (ValueError, RecursionError):
        return []


# Strings and comments with their end, or up to the end of the text (so that no position is tried
# twice: the whole stays linear); a comma before a closing bracket; Python's constants.
_COMMENT = r"//[^\n]*+ | /\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)"
_SLIP = re.compile(
    rf""" "(?:[^"\\]|\\.)*+ (?:"|\\?\Z) | '(?:[^'\\]|\\.)*+ (?:'|\\?\Z)
    | {_COMMENT} | ,(?=(?:\s|{_COMMENT})*+[}}\]]) | \b(?:True|False|None)\b """,
    re.VERBOSE | re.DOTALL,
)
_BARE_QUOTE = re.compile(r'(?<!\\)"')
_PYTHON = {"True": "true", "False": "false", "None": "null"}


def _mended(body: str) -> list[dict[str, Any]]:
    """The object after the repair of single quotes, spare commas, comments, Python's constants."""
    return _loaded(_SLIP.sub(_mend, body, count=_MOST_REPAIRS))


def _mend(match: re.Match[str]) -> str:
    found = match.group()
    if found[0] == '"':
        return found
    if found[0] == "'":
        inner = found[1:].removesuffix("'").replace("\\'", "'")
        return '"' + (_BARE_QUOTE.sub(r"\"", inner) if '"' in inner else inner) + '"'
    return _PYTHON.get(found, "")
