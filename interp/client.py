"""One question to one vision model behind an OpenAI-compatible server (default: OpenRouter).

The SDK never retries: its retries would be invisible. Every way in which a request can go wrong
ends in a `ReplyError` with a kind (this question failed) or a `UserError` (the run must stop). The
key is in the request's header and nowhere else: not in a file, a log, a message or a traceback.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity

from interp.failures import KEY_VARIABLE, FormUnsupported, failure
from interp.ledger import Ledger, key_of, request_of
from interp.questions import OPENROUTER, Picture, Question, Reply, ReplyError, Usage, VisionModel
from interp.wire import FORMS, Form, read_body, request_body
from sae.errors import FAILURES, UserError

if TYPE_CHECKING:
    import openai

__all__ = [
    "ChatModel",
    "ClientConfig",
    "Picture",
    "Question",
    "Reply",
    "ReplyError",
    "Usage",
    "VisionModel",
]

_PATIENT = frozenset({"rate_limit", "in_flight", "connection"})
"""What may last: waited for until the deadline. Other faults get a few tries, since servers also
send 500 for what will never work."""


@dataclass(frozen=True)
class ClientConfig:
    """Which model, where, and how long to try."""

    model: str
    base_url: str = OPENROUTER
    timeout: float = 120.0
    """Seconds for one request."""
    deadline: float = 600.0
    """Seconds for one question with all its waits and retries."""
    first_wait: float = 1.0
    """Seconds; the bound of the first random wait, doubled each time up to a minute."""
    n_tries: int = 5
    """For faults that waiting rarely cures; twice as many once the server has answered at all."""
    reasoning: str = ""
    """Effort ("none", "minimal", "low", ...) for models that reason; "" leaves it to the server."""

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UserError(
                f"--base-url {public_url(self.base_url)!r} is not of the form https://..."
            )
        if not self.model:
            raise UserError("--model is empty; give a model's id")

    @property
    def is_openrouter(self) -> bool:
        """Whether the server knows OpenRouter's own fields; others answer 422 to them."""
        host = urlsplit(self.base_url).hostname or ""
        return host == "openrouter.ai" or host.endswith(".openrouter.ai")


class ChatModel:
    """A `VisionModel` over HTTP. Enter it as an async context manager to close its connections."""

    def __init__(self, config: ClientConfig, ledger: Ledger, api_key: str | None = None) -> None:
        """The key is read from OPENROUTER_API_KEY; only a `--base-url` of one's own needs none."""
        self.name = config.model
        self.config = config
        self._ledger = ledger
        self._key = _Secret(_checked_key(api_key, config))
        self._sdk: openai.AsyncOpenAI | None = None
        self._form = 0
        self._has_answered = False
        self._n_failed = 0
        self._fatal: UserError | None = None

    async def __aenter__(self) -> ChatModel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sdk is not None:
            await self._sdk.close()
            self._sdk = None

    async def ask(self, question: Question) -> Reply:
        """A usable text, stored before it is returned; an answer cut short is asked once more.

        Raises `ReplyError` for this question and `UserError` when no question can be answered.
        """
        reply = await self._answer(question)
        if reply.finish_reason == "length":
            cut = reply
            longer = dataclasses.replace(question, max_tokens=2 * question.max_tokens)
            try:
                reply = await self._answer(longer)
            except ReplyError as error:
                error.calls, error.usage = cut.calls + error.calls, cut.usage + error.usage
                raise
            usage = cut.usage + reply.usage
            reply = dataclasses.replace(reply, usage=usage, earlier=cut.calls)
        return _usable(reply)

    async def _answer(self, question: Question) -> Reply:
        parameters = {"reasoning": self.config.reasoning} if self.config.reasoning else {}
        base_url = public_url(self.config.base_url)
        request = request_of(question, self.name, base_url, parameters)
        key = key_of(request)
        try:
            return await self._ledger.once(key, request, lambda: self._send(question, key))
        except ReplyError as error:
            self._count(error)
            raise

    async def _send(self, question: Question, key: str) -> Reply:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=self._wait,
            stop=self._is_over,
            reraise=True,
        )
        loop = asyncio.get_running_loop()
        end = loop.time() + self.config.deadline
        async for attempt in retrying:
            with attempt:
                reply = await self._try_forms(question, key, end - loop.time())
        self._has_answered = True
        return reply

    async def _try_forms(self, question: Question, key: str, seconds: float) -> Reply:
        """One request, or one for each form of asking for JSON that turns out not to be known."""
        while True:
            form = self._form if question.schema is not None else len(FORMS) - 1
            try:
                return await self._request(question, key, FORMS[form], seconds)
            except FormUnsupported as error:
                if form + 1 == len(FORMS):
                    raise ReplyError("bad_request", str(error)) from None
                self._form = max(self._form, form + 1)

    async def _request(self, question: Question, key: str, form: Form, seconds: float) -> Reply:
        """One HTTP request. Errors are raised outside of the handlers: the SDK's own error holds
        the request with its headers, and must not hang on ours as its context."""
        if self._fatal is not None:
            raise self._fatal
        import openai

        wrong: Exception
        limit = min(self.config.timeout, max(1.0, seconds))
        try:
            async with asyncio.timeout(limit):
                text, headers = await self._post(self._body(question, form))
        except (TimeoutError, openai.APITimeoutError):
            wrong = ReplyError("timeout", f"no answer in {limit:.3g} s")
        except openai.APIStatusError as error:
            body = json.loads(self._clean(json.dumps(error.body)))
            wrong = failure(error.status_code, body, error.response.headers, self.name)
        except openai.APIConnectionError as error:
            wrong = ReplyError("connection", self._clean(str(error.__cause__ or error)))
        except openai.APIError as error:
            wrong = ReplyError("error_body", self._clean(error.message))
        else:
            found = read_body(text, headers, self.name, key)
            if isinstance(found, Reply):
                return found
            wrong = found
        if isinstance(wrong, UserError):
            self._fatal = wrong
        raise wrong

    async def _post(self, body: dict[str, Any]) -> tuple[str, Mapping[str, str]]:
        """The response's text and headers. The text is clean from here on: a traceback that shows
        local variables must not show a key that the server echoed."""
        raw = await self._connected().chat.completions.with_raw_response.create(**body)
        return self._clean(raw.content.decode("utf-8", "replace")), raw.headers

    def _connected(self) -> openai.AsyncOpenAI:
        if self._sdk is None:
            import openai

            self._sdk = openai.AsyncOpenAI(
                api_key=self._key.value,
                base_url=self.config.base_url,
                max_retries=0,
                timeout=self.config.timeout,
            )
        return self._sdk

    def _body(self, question: Question, form: Form) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self.config.is_openrouter:
            # Otherwise a provider may silently ignore the schema.
            extra["provider"] = {"require_parameters": True}
        if self.config.reasoning:
            extra["reasoning"] = {"effort": self.config.reasoning}
        body = request_body(question, self.name, form)
        return {**body, **({"extra_body": extra} if extra else {})}

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds: random and doubling, on top of what the server asked for."""
        jitter = tenacity.wait_random_exponential(self.config.first_wait, max=60.0)(state)
        error = state.outcome.exception() if state.outcome else None
        floor = error.retry_after if isinstance(error, ReplyError) else None
        return (floor or 0.0) + jitter

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, ReplyError)
        patient = error.kind in _PATIENT and (self._has_answered or error.kind != "connection")
        n_tries = self.config.n_tries * (2 if self._has_answered else 1)
        if not patient and state.attempt_number >= n_tries:
            return True
        return tenacity.stop_before_delay(self.config.deadline)(state)

    def _count(self, error: ReplyError) -> None:
        """Stop a run whose first questions all fail: the server or the model cannot do it."""
        if self._has_answered or error.kind == "moderated":
            return
        self._n_failed += 1
        if self._n_failed >= self.config.n_tries:
            url = public_url(self.config.base_url)
            self._fatal = UserError(
                f"no question was answered by {self.name} at {url} ({error}); "
                "check --model and --base-url, then run the same command",
                FAILURES,
            )
            raise self._fatal from None

    def _clean(self, text: str) -> str:
        """Without the key, which some servers echo."""
        text = text.replace(self._key.value, "[key]") if self._key.is_set else text
        return re.sub(r"(?i)\bbearer\s+[\w.~+/=-]{8,}", "Bearer [key]", text)


class _Secret:
    """A key whose printed form tells nothing."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.is_set = value != _NO_KEY

    def __repr__(self) -> str:
        return "[key]"


_NO_KEY = "none"


def _checked_key(given: str | None, config: ClientConfig) -> str:
    key = (given if given is not None else os.environ.get(KEY_VARIABLE, "")).strip()
    if not key and config.is_openrouter:
        raise UserError(f"{KEY_VARIABLE} is not set; export it, or use --model local")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"{KEY_VARIABLE} has characters that no key has; export it again")
    return key or _NO_KEY


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ReplyError) and error.transient


def _usable(reply: Reply) -> Reply:
    if reply.finish_reason in ("refusal", "content_filter"):
        message = reply.text[:200] or "cut by a content filter"
        raise ReplyError("refused", message, calls=reply.calls, usage=reply.usage)
    if reply.finish_reason == "length":
        message = "the answer was cut twice by max_tokens"
        raise ReplyError("truncated", message, calls=reply.calls, usage=reply.usage)
    return reply


def public_url(base_url: str) -> str:
    """A URL without user, password and query."""
    url = urlsplit(base_url)
    return url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl()
