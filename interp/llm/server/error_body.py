"""What an error says, whatever its shape: one record for all servers.

Seen: {"error": {...}}, {"error": "text"}, {"detail": text or list}, a list with one of these, one
of these as JSON text inside another, plain text, HTML, nothing.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

_SHOWN = 300
"""Characters of a message that a person is shown."""
_READ = 2000
"""Characters of a message that are searched for words."""
_DEEPEST = 5
"""Layers of error in error that are opened."""


class Fault(NamedTuple):
    """An error as a server reported it."""

    status: int
    """HTTP status, or the error's own code where the status was 200; 0: neither is known."""
    text: str
    """One line with all that was said, at most 2,000 characters."""
    names: frozenset[str]
    """Names for programs, in lower case: error_type, type, code, param, status, reason, ..."""
    metadata: Mapping[str, Any]
    """OpenRouter's; empty elsewhere."""
    wait: float | None
    """Seconds that the server asks to wait."""
    is_page: bool
    """No error object but text or a page: something in front of the server may have sent it."""

    @property
    def message(self) -> str:
        """Short enough to be shown."""
        return self.text[:_SHOWN]


def read_fault(status: int, body: Any, headers: Mapping[str, str]) -> Fault:
    """`body`: parsed JSON (all of it, or the inner error) or text. Raises nothing."""
    layers = list(_layers(body))
    objects = [layer for layer in layers if isinstance(layer, Mapping)]
    metadata = _first(objects, "metadata")
    names = list(_names([*objects, metadata]))
    return Fault(
        status=status or _own_status(objects, names),
        text=_line(_text(layers) or ", ".join(names)) or "no message",
        names=frozenset(names),
        metadata=metadata,
        wait=_wait(headers, metadata),
        is_page=not objects,
    )


def retry_after(headers: Mapping[str, Any]) -> float | None:
    """Seconds that the server asks to wait (a number or a date), or None."""
    text = str(headers.get("retry-after", ""))[:100]
    seconds = _seconds(text)
    if seconds is None:
        try:
            date = email.utils.parsedate_tz(text)
            then = math.nan if date is None else email.utils.mktime_tz(date)
        except (ValueError, OverflowError, IndexError, TypeError):  # a date of the year 10^9
            return None
        seconds = then - datetime.now(UTC).timestamp()
    return max(0.0, seconds) if math.isfinite(seconds) else None


_NAMES_OF = {
    400: ("invalid_request", "invalid_request_error", "invalid_argument", "failed_precondition"),
    401: ("authentication", "authentication_error", "invalid_api_key", "unauthenticated"),
    402: ("payment_required", "billing_error", "insufficient_credits"),
    403: ("permission_denied", "permission_error"),
    404: ("not_found", "not_found_error", "model_not_found"),
    413: ("payload_too_large", "request_too_large"),
    422: ("unprocessable",),
    429: ("rate_limit_exceeded", "rate_limit_error", "insufficient_quota", "resource_exhausted"),
    500: ("server", "server_error", "api_error", "internal_server_error"),
    502: ("provider_unavailable",),
    503: ("provider_overloaded", "unavailable", "unavailable_error"),
    504: ("timeout", "timeout_error", "deadline_exceeded"),
    529: ("overloaded_error",),
}
"""OpenRouter's error types, and those of OpenAI, Anthropic, Google and llama.cpp."""
_STATUS_OF = {name: status for status, names in _NAMES_OF.items() for name in names}

_WORDS = ("message", "msg", "detail", "details", "error", "errors", "title", "raw")
_NAMES = (
    *("error_type", "type", "code", "param", "status", "reason", "limit_source"),
    "failed_routing_step",
)


def _layers(body: Any) -> Iterator[Any]:
    """The body, and each error inside of it."""
    for _ in range(_DEEPEST):
        body = _opened(body)
        yield body
        inner = _inner(body)
        if inner is None:
            return
        body = inner


def _inner(body: Any) -> Any:
    if isinstance(body, list):
        return next((part for part in body if isinstance(part, Mapping)), None)
    if not isinstance(body, Mapping):
        return None
    for key, kinds in (("error", (Mapping, list)), ("detail", (Mapping,))):
        inner = _opened(body.get(key))
        if inner and isinstance(inner, kinds):
            return inner
    return None


def _opened(value: Any) -> Any:
    """JSON that came as text is read; other text stays."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _first(objects: list[Mapping[str, Any]], key: str) -> Mapping[str, Any]:
    found = (layer.get(key) for layer in objects)
    return next((value for value in found if isinstance(value, Mapping)), {})


def _own_status(objects: list[Mapping[str, Any]], names: list[str]) -> int:
    for layer in reversed(objects):
        for key in ("code", "status", "status_code"):
            found = re.fullmatch(r"([45]\d\d)(\.0)?", str(_plain(layer.get(key))))
            if found:
                return int(found.group(1))
    return max((_STATUS_OF.get(name, 0) for name in names), default=0)


def _names(objects: list[Mapping[str, Any]]) -> Iterator[str]:
    for layer in objects:
        for key in _NAMES:
            value = layer.get(key)
            if isinstance(value, str):
                yield value[:100].lower()


def _text(layers: list[Any]) -> str:
    """The innermost layer that says something, with what the provider behind it said."""
    for layer in reversed(layers):
        said = list(dict.fromkeys(_said(layer, _DEEPEST)))
        if said:
            return "; ".join(said)
    return ""


def _said(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        opened = _opened(value)
        inner = list(_said(opened, depth - 1)) if depth and opened is not value else []
        plain = "a page of HTML" if value.lstrip()[:1] == "<" else value[:_READ]
        yield from inner or ([plain] if plain.strip() else [])
    elif isinstance(value, list):
        for part in value[:3] if depth else ():
            yield from _said(part, depth - 1)
    elif isinstance(value, Mapping) and depth:
        for key in _WORDS:
            yield from _said(value.get(key), depth - 1)
        yield from _details(value)


def _details(error: Mapping[str, Any]) -> Iterator[str]:
    """What else helps: the field that was wrong, llama.cpp's sizes, OpenRouter's provider."""
    place = error.get("loc")
    if isinstance(place, list):
        yield ".".join(str(_plain(part)) for part in place[:5])
    for key in ("n_prompt_tokens", "n_ctx"):
        if _plain(error.get(key)):
            yield f"{key} {_plain(error[key])}"
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping):
        yield from _said(metadata.get("raw"), 2)
        for key in ("provider_name", "provider_code"):
            yield from _said(metadata.get(key), 0)


def _plain(value: Any) -> str | int | float:
    """A short text or a number of usual size; "" for all else."""
    if isinstance(value, str):
        return value[:100]
    return value if isinstance(value, int | float) and abs(value) < 10**9 else ""


def _line(text: str) -> str:
    """One line that can be written to any file."""
    whole = text[: 2 * _READ].encode("utf-8", "replace").decode("utf-8")
    shown = "".join(c if c.isprintable() else " " for c in whole)
    return " ".join(shown.split())[:_READ]


def _wait(headers: Mapping[str, str], metadata: Mapping[str, Any]) -> float | None:
    """An error inside an answer has no headers of its own: OpenRouter repeats them in it."""
    repeated = metadata.get("headers")
    pairs = repeated.items() if isinstance(repeated, Mapping) else ()
    sources = (
        headers,
        {name.lower(): _plain(value) for name, value in pairs},
        {"retry-after": _plain(metadata.get("retry_after_seconds"))},
    )
    waits = (retry_after(source) for source in sources)
    return next((wait for wait in waits if wait is not None), None)


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
