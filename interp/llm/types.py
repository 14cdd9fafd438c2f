"""What crosses the border to a vision model: the question, its answer, and why there is none."""

from __future__ import annotations

import base64
import io
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, get_args
from urllib.parse import urlsplit

from sae.core.files import sha256_hex

OPENROUTER = "https://openrouter.ai/api/v1"
"""The server that is asked when no other is named."""

Transient = Literal[
    "rate_limit",  # 429
    "in_flight",  # 402: too much credit reserved by requests still running
    "overloaded",  # 503, 529
    "server",  # other 5xx, 408, 409
    "timeout",
    "connection",
    "error_body",  # 200 with an error in the body, or finish_reason "error"
    "broken_body",  # 200 whose body is no JSON
    "html",  # a page instead of an answer
    "empty",  # no choice, or no text in it
]
"""What waiting can cure."""

Lasting = Literal[
    "not_json",  # the model's text holds no JSON object
    "wrong_keys",  # JSON, but not for the letters that were asked
    "invalid",  # the right keys with values out of their range or type
    "truncated",  # cut by max_tokens, also after doubling it
    "refused",  # the model would not answer
    "moderated",  # 403: the pictures or the text were flagged
    "forbidden",  # 403 for another reason
    "bad_request",  # 400, 413, 422
]

Kind = Transient | Lasting
"""Why there is no usable answer."""


@dataclass(frozen=True)
class Picture:
    """An encoded image as it is sent. What is derived from its bytes is worked out once."""

    data: bytes
    media_type: str
    """"image/png" or "image/jpeg"."""

    @cached_property
    def sha256(self) -> str:
        """Content hash, 64 hex digits: what the ledger keeps of it."""
        return sha256_hex(self.data)

    @cached_property
    def base64(self) -> str:
        """As it stands in a request."""
        return base64.b64encode(self.data).decode("ascii")

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, read from the file's header."""
        from PIL import Image

        with Image.open(io.BytesIO(self.data)) as image:
            return image.size


class LatePicture(Picture):
    """A picture of a known size that is drawn when its bytes are first asked for, or never.

    An estimate of costs needs the size alone.
    """

    def __init__(self, size: tuple[int, int], draw: Callable[[], Picture]) -> None:
        vars(self).update(size=size, _draw=draw)  # a frozen dataclass has no other way

    @cached_property
    def _drawn(self) -> Picture:
        draw: Callable[[], Picture] = vars(self).pop("_draw")
        return draw()

    @property
    def data(self) -> bytes:
        """See `Picture`."""
        return self._drawn.data

    @property
    def media_type(self) -> str:
        """See `Picture`."""
        return self._drawn.media_type

    @property
    def sha256(self) -> str:
        """See `Picture`."""
        return self._drawn.sha256

    @property
    def base64(self) -> str:
        """See `Picture`."""
        return self._drawn.base64

    def __eq__(self, other: object) -> bool:
        return self._drawn == (other._drawn if isinstance(other, LatePicture) else other)

    def __hash__(self) -> int:
        return hash(self._drawn)


@dataclass(frozen=True)
class Question:
    """One request to one model. Equal questions have equal ledger keys."""

    system: str
    parts: tuple[str | Picture, ...]
    """The user's message, in the order in which the model reads it."""
    schema: dict[str, Any] | None
    """JSON schema of the answer; None asks for free text."""
    schema_name: str
    max_tokens: int
    """Always sent: without it the gateway reserves the model's maximum in credit."""
    temperature: float
    prompt: str
    """Fingerprint of the templates and the schema (`interp.llm.prompts.fingerprint`)."""
    attempt: int = 0
    """Odd for the question that asks to mend an unusable answer; part of the key."""
    about: str = ""
    """What it is asked for, as "explain 17": kept in the ledger for its sums, not in the key."""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


@dataclass(frozen=True)
class Usage:
    """What one answer used."""

    prompt_tokens: int
    completion_tokens: int
    usd: float
    """As the server bills it; NaN when it does not say (never 0 for unknown)."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.usd + other.usd,
        )


NOTHING_USED = Usage(0, 0, 0.0)


@dataclass(frozen=True)
class Reply:
    """A model's answer, already durable in the ledger when anybody sees it."""

    text: str
    model: str
    """The model that says it answered; gateways may differ from what was asked."""
    provider: str | None
    usage: Usage
    """Of all calls in `calls`."""
    finish_reason: str
    key: str
    """In the ledger."""
    earlier: tuple[str, ...] = ()
    """Keys of answers paid before this one: cut ones that were asked again with more room."""
    n_thought: int = 0
    """Completion tokens that went into thoughts, where the server says."""
    room: int = 0
    """Bound on completion tokens that was sent; 0 in ledgers of the first version."""
    stored: bool = field(default=False, compare=False)
    """Read from the ledger: nothing was sent for it this time."""

    @property
    def calls(self) -> tuple[str, ...]:
        """Keys of everything that was paid for this answer."""
        return (*self.earlier, self.key)


class ReplyError(Exception):
    """A question without a usable answer: a state to record, never a label."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        retry_after: float | None = None,
        *,
        calls: tuple[str, ...] = (),
        usage: Usage = NOTHING_USED,
        unsent: bool = False,
        stored: bool = False,
    ) -> None:
        """`retry_after` in seconds; `calls` and `usage` tell what was paid all the same.

        `unsent`: no connection was made, so nobody can have worked on it. `stored`: it is an
        answer that the ledger already held.
        """
        super().__init__(f"{kind}: {message}")
        self.kind: Kind = kind
        self.message = message
        self.retry_after = retry_after
        self.calls = calls
        self.usage = usage
        self.unsent = unsent
        self.stored = stored

    @property
    def lost(self) -> bool:
        """Whether an answer may have been made, and billed, that did not arrive."""
        return self.kind in ("timeout", "connection", "broken_body") and not self.unsent


def is_transient(kind: str) -> bool:
    """Whether asking the same thing again later can end otherwise."""
    return kind in get_args(Transient)


class VisionModel(Protocol):
    """Anything that answers a question about pictures: the client, or a fake in a test."""

    name: str

    async def ask(self, question: Question) -> Reply:
        """Raises `ReplyError` for this question, `UserError` when no question can be answered."""
        ...


CONCURRENCY = 16

Width = int | Callable[[], int]
"""How many items are in work at once: a number, or what gives it from moment to moment."""

KEY_VARIABLE = "OPENROUTER_API_KEY"


def public_url(base_url: str) -> str:
    """A URL without user, password and query."""
    url = urlsplit(base_url)
    return url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()


def typed_url(base_url: str) -> str:
    """A URL as it may be printed in a command: no login, and no value of a query that may be a key.

    Versions and the like stay ("?api-version=2026-01-01"); what was taken out stands as "...".
    """
    url = urlsplit(base_url)
    pairs = [pair.partition("=") for pair in url.query.split("&") if pair]
    is_plain = re.compile(r"[\w.:-]{0,15}", re.ASCII).fullmatch
    shown = [
        f"{name}={value if is_plain(value) and not _SECRET_NAME.search(name) else '...'}"
        for name, _, value in pairs
    ]
    return public_url(base_url) + (f"?{'&'.join(shown)}" if shown else "")


_SECRET_NAME = re.compile(r"key|token|secret|sig|auth|pass|code", re.IGNORECASE)


def is_own(base_url: str) -> bool:
    """Whether a server is on this machine or network: nobody sends a bill for it."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or host.endswith((".local", ".localhost")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback or address.is_link_local
