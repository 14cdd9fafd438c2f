"""From what a server sent instead of an answer to the one reason for it.

Servers have three shapes of error body: {"error": {...}}, {"detail": ...} and plain text, and a
gateway may send the first with status 200. What no waiting and no other question can cure is a
`UserError`: it ends the run.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from interp.questions import ReplyError
from sae.errors import BUDGET, UserError

KEY_VARIABLE = "OPENROUTER_API_KEY"

_LONGEST = 300
"""Characters of a server's message that are kept."""

_FORM = re.compile(
    r"response_format|json[ _]schema|json[ _]object|structured|\bschema\b|\bstrict\b|grammar|"
    r"additionalproperties|requested parameters",
    re.IGNORECASE,
)
_FLAGGED = re.compile(r"moderat|flagged|content policy|safety", re.IGNORECASE)
_NO_CREDIT = re.compile(r"key limit|credit|quota|billing", re.IGNORECASE)


class FormUnsupported(Exception):
    """The server does not take this form of asking for JSON; a plainer one may do."""


def failure(
    status: int, body: Any, headers: Mapping[str, str], model: str
) -> ReplyError | UserError | FormUnsupported:
    """The reason behind an error body; `status` is the HTTP status or the error's own code.

    `body` is parsed JSON (the outer object or the inner error) or text. Nothing here is secret,
    except what a server echoes: clean the message before it is shown.
    """
    error = _inner(body)
    message = _message(error)
    wait = retry_after(headers)
    if status in (400, 404, 422) and _FORM.search(message):
        return FormUnsupported(message)
    if status == 401:
        return UserError(f"the server refused the key (401: {message}); check {KEY_VARIABLE}")
    if status == 402:
        return _credit(error, message, wait)
    if status == 403:
        return _forbidden(error, message)
    if status == 404:
        return UserError(f"nothing answers for model {model!r} (404: {message}); check --model")
    if status == 429:
        return ReplyError("rate_limit", message, wait)
    if status in (408, 409) or status >= 500:
        return ReplyError("server", f"{status}: {message}", wait)
    if 400 <= status < 500:
        return ReplyError("bad_request", f"{status}: {message}")
    return ReplyError("error_body", message, wait)


def failure_in_body(
    error: Any, headers: Mapping[str, str], model: str
) -> ReplyError | UserError | FormUnsupported:
    """The reason behind an error that came with status 200; its own code counts."""
    code = error.get("code") if isinstance(error, dict) else None
    known = isinstance(code, (int, str)) and re.fullmatch(r"[45]\d\d", str(code))
    return failure(int(code) if known and code else 0, error, headers, model)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (a number or a date), or None."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        date = email.utils.parsedate_tz(text)
        if date is None:
            return None
        seconds = email.utils.mktime_tz(date) - datetime.now(UTC).timestamp()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _inner(body: Any) -> Any:
    if isinstance(body, dict) and "error" in body:
        return body["error"]
    return body


def _message(error: Any) -> str:
    """One line of at most 300 characters: the message, and what the provider behind it said."""
    if isinstance(error, dict):
        metadata = error.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, dict) else None
        texts = [error.get("message"), error.get("detail"), raw]
        text = "; ".join(str(part) for part in texts if part) or str(error)
    else:
        text = str(error or "no message")
    if text.lstrip()[:1] == "<":
        text = "a page of HTML"
    return " ".join(text.split())[:_LONGEST]


def _metadata(error: Any) -> Mapping[str, Any]:
    metadata = error.get("metadata") if isinstance(error, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _credit(error: Any, message: str, wait: float | None) -> ReplyError | UserError:
    kinds = {str(_metadata(error).get(name)) for name in ("limit_source", "error_type")}
    # Credit reserved by our own requests in flight comes back when they end.
    if wait is not None or any("in_flight" in kind for kind in kinds):
        return ReplyError("in_flight", message, wait)
    return _no_credit(402, message)


def _no_credit(status: int, message: str) -> UserError:
    return UserError(
        f"no credit left ({status}: {message}); add credit, then run the same command: "
        "what was answered is not paid again",
        BUDGET,
    )


def _forbidden(error: Any, message: str) -> ReplyError | UserError:
    metadata = _metadata(error)
    if "reasons" in metadata or "flagged_input" in metadata or _FLAGGED.search(message):
        return ReplyError("moderated", message)
    if _NO_CREDIT.search(message):
        return _no_credit(403, message)
    return ReplyError("forbidden", message)
