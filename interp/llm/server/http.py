"""One HTTP request to an OpenAI-compatible server, and the one reason when it brings no answer.

The SDK never retries: its retries would be invisible. The key is in the request's header and
nowhere else: not in a file, a log, a message or a traceback.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from interp.llm.server.chat_format import encode_body, read_body, request_body
from interp.llm.server.dialect import Dialect
from interp.llm.server.errors import failure
from interp.llm.server.wire import (
    MOST_BYTES,
    UNSENT,
    BadBody,
    connect,
    find_proxy,
    of_proxy,
    of_tls,
    speaks_tls,
)
from interp.llm.types import KEY_VARIABLE, OPENROUTER, Question, Reply, ReplyError, public_url
from sae.core.errors import UserError

if TYPE_CHECKING:
    import openai


@dataclass(frozen=True)
class ClientConfig:
    """Which model, where, and how long to try."""

    model: str
    base_url: str = OPENROUTER
    concurrency: int | None = None
    """Requests in flight; None adapts to what the server takes."""
    timeout: float = 120.0
    """Seconds for one request."""
    deadline: float = 600.0
    """Seconds for one question with all its requests and waits, but for its place in the line."""
    first_wait: float = 1.0
    """Seconds; the bound of the first random wait, doubled each time up to a minute."""
    n_tries: int = 5
    """For faults that waiting rarely cures; twice as many once the server has answered at all."""
    most_bytes: int = MOST_BYTES
    """Of one body."""
    reasoning: str = ""
    """Effort ("none", "minimal", "low", ...) for models that reason; "" leaves it to the server."""
    max_tokens: int | None = None
    """Tokens of an answer with its thoughts; None: what it needs, more for models that think."""
    provider: tuple[str, ...] = ()
    """OpenRouter: only these providers behind it."""
    quantization: tuple[str, ...] = ()
    """OpenRouter: only providers that serve the model in one of these ("fp8", "bf16")."""
    zdr: bool = False
    """OpenRouter: only providers that keep nothing (zero data retention)."""
    max_price: tuple[float, float] | None = None
    """OpenRouter: only providers that ask no more, USD per million tokens (prompt, completion):
    its list gives a model's lowest price, and a cap is worth no more than the price behind it."""

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
        """Whether the server knows OpenRouter's own fields; others may answer 422 to them."""
        url = urlsplit(self.base_url)
        host = url.hostname or ""
        at_home = host == "openrouter.ai" or host.endswith(".openrouter.ai")
        return at_home or url.path.rstrip("/").endswith("/api/v1")

    @property
    def needs_key(self) -> bool:
        """Whether there is no use in asking without a key."""
        host = urlsplit(self.base_url).hostname or ""
        return host == "openrouter.ai" or host.endswith(".openrouter.ai")

    @property
    def routing(self) -> dict[str, Any]:
        """OpenRouter's `provider` object, as far as it was asked for."""
        return {
            **({"only": list(self.provider)} if self.provider else {}),
            **({"quantizations": list(self.quantization)} if self.quantization else {}),
            **({"zdr": True} if self.zdr else {}),
        }


class Transport:
    """Sends bodies to one server with one key."""

    def __init__(self, config: ClientConfig, api_key: str | None = None) -> None:
        """The key is read from OPENROUTER_API_KEY; only a `--base-url` of one's own needs none."""
        self.config = config
        self._key = _Secret(_checked_key(api_key, config))
        self._sdk: openai.AsyncOpenAI | None = None
        self._has_answered = False

    async def close(self) -> None:
        """Close the connections."""
        if self._sdk is not None:
            await self._sdk.close()
            self._sdk = None

    async def send(self, question: Question, dialect: Dialect, seconds: float, key: str) -> Reply:
        """One request in one dialect, ended after `seconds`.

        `key`: the answer's place in the ledger. Raises `ReplyError`, `UserError` or `Unsupported`,
        outside of the handlers: the SDK's own error holds the request with its headers, and must
        not hang on ours as its context.
        """
        import openai

        wrong: Exception
        try:
            self._connected()
            async with asyncio.timeout(seconds):
                text, headers = await self._post(request_json(self.config, question, dialect))
        except (TimeoutError, openai.APITimeoutError):
            wrong = ReplyError("timeout", f"no answer in {seconds:.3g} s")
        except openai.APIStatusError as error:
            said = self._clean(error.response.text)
            wrong = failure(error.status_code, said, error.response.headers, self.config.model)
        except UserError as error:
            wrong = UserError(str(error), error.exit_code)  # without the frames that hold the key
        except BadBody as error:
            wrong = ReplyError("broken_body", str(error))
        except openai.APIConnectionError as error:
            wrong = self._of_connection(error.__cause__ or error)
            if isinstance(wrong, ReplyError) and not wrong.unsent:
                wrong = await self._of_scheme() or wrong
        except openai.APIError as error:
            wrong = ReplyError("error_body", self._clean(error.message))
        else:
            self._has_answered = True
            found = read_body(text, headers, self.config.model, key)
            if isinstance(found, Reply):
                return found
            wrong = found
        raise wrong

    def _of_connection(self, cause: BaseException) -> ReplyError | UserError:
        """Why no answer came; what waiting cannot cure ends the run."""
        wrong = of_tls(cause, self.config.base_url)
        if wrong is not None:
            return wrong
        kind, said = type(cause).__name__, self._clean(str(cause))
        refused = of_proxy(kind, said, self.config.base_url)
        if refused is not None and not self._has_answered:
            return refused
        return ReplyError("connection", said or kind, unsent=kind in UNSENT)

    async def _of_scheme(self) -> UserError | None:
        """A server that wants https closes a plain connection without a word."""
        url = self.config.base_url
        if self._has_answered or not url.startswith("http://") or find_proxy(url):
            return None
        if not await speaks_tls(url):
            return None
        safe = public_url(url).replace("http://", "https://", 1)
        return UserError(f"the server speaks https and not http; try --base-url {safe}")

    async def _post(self, body: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
        """The response's text and headers. The text is clean from here on: a traceback that shows
        local variables must not show a key that the server echoed."""
        import openai

        # The SDK's own `create` walks through every field of the body and encodes the pictures
        # once more: a quarter of all time that a request costs.
        raw = await self._connected().post(
            "/chat/completions",
            cast_to=openai.HttpxBinaryResponseContent,
            content=encode_body(body),
            options={"headers": {"Content-Type": "application/json"}},
        )
        return self._clean(raw.content.decode("utf-8", "replace")), raw.response.headers

    def _connected(self) -> openai.AsyncOpenAI:
        if self._sdk is None:
            config, key = self.config, self._key
            self._sdk = connect(
                config.base_url,
                key.value,
                config.timeout,
                has_key=key.is_set,
                most=config.most_bytes,
            )
        return self._sdk

    def _clean(self, text: str) -> str:
        """Without the key, which some servers echo."""
        text = text.replace(self._key.value, "[key]") if self._key.is_set else text
        return re.sub(r"(?i)\bbearer\s+[\w.~+/=-]{8,}", "Bearer [key]", text)


def request_json(config: ClientConfig, question: Question, dialect: Dialect) -> dict[str, Any]:
    """The body of one request as it is sent; the key is no part of it."""
    routing: dict[str, Any] = {}
    if dialect.routing:
        # Otherwise a provider may silently ignore the schema.
        requires = config.is_openrouter and dialect.form != "plain"
        routing = {
            **({"require_parameters": True} if requires else {}),
            **(_max_price(config.max_price) if config.is_openrouter and config.max_price else {}),
            **config.routing,
        }
    effort = {"effort": config.reasoning} if dialect.effort == "reasoning" else config.reasoning
    bound = {dialect.room: dialect.tokens(question, config.max_tokens)} if dialect.room else {}
    return {
        **request_body(question, config.model, dialect),
        **bound,
        **({"provider": routing} if routing else {}),
        **({dialect.effort: effort} if config.reasoning else {}),
    }


def dialect_scope(config: ClientConfig) -> str:
    """For whom a dialect is remembered: server, model, chosen providers."""
    return " ".join([public_url(config.base_url), config.model, *config.provider])


def _max_price(price: tuple[float, float]) -> dict[str, Any]:
    return {"max_price": {"prompt": price[0], "completion": price[1]}}


class _Secret:
    """A key whose printed form tells nothing."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.is_set = value != _NO_KEY

    def __repr__(self) -> str:
        return "[key]"


_NO_KEY = "none"


def require_key(config: ClientConfig) -> None:
    """Raise `UserError` where the server needs a key and there is none, or what is no key."""
    _checked_key(None, config)


def _checked_key(given: str | None, config: ClientConfig) -> str:
    key = (given if given is not None else os.environ.get(KEY_VARIABLE, "")).strip()
    if not key and config.needs_key:
        raise UserError(f"{KEY_VARIABLE} is not set; export it, or use --model local")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"{KEY_VARIABLE} has characters that no key has; export it again")
    return key or _NO_KEY
