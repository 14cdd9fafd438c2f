"""A vision model behind an OpenAI-compatible server: one question in, one stored answer out.

Every way in which a question can go wrong ends in a `ReplyError` with a kind (this question failed)
or a `UserError` (the run must stop). Waiting, retrying, the budget in flight and the cap on
spending are here and nowhere else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tenacity

from interp.llm.concurrency import Gate, is_stopped
from interp.llm.cost.budget import Purse
from interp.llm.cost.tariff import Tariff
from interp.llm.cost.tokens import prompt_tokens
from interp.llm.ledger.ledger import Ledger, Paid, key_of, request_of
from interp.llm.server.chat_format import FORMS, Form
from interp.llm.server.errors import FormUnsupported
from interp.llm.server.http import ClientConfig, Transport, form_scope
from interp.llm.server.json_mode import FormLadder
from interp.llm.types import (
    NOTHING_USED,
    Kind,
    Question,
    Reply,
    ReplyError,
    Usage,
    is_transient,
    public_url,
)
from sae.core.errors import FAILURES, UserError

__all__ = ["ChatModel", "ClientConfig"]

_PATIENT = frozenset({"rate_limit", "in_flight", "connection"})
"""What may last: waited for until the deadline. Other faults get a few tries, since servers also
send 500 for what will never work."""
_TOO_MUCH = frozenset({"rate_limit", "in_flight", "overloaded"})
"""The server gets more requests than it takes."""
_BILLED_TRIES = 2
"""For an answer without text that is billed all the same: a model that only thought, say."""
_HOPELESS = 32
"""Questions in a row that fail after others were answered: the server has gone."""
_LARGEST = 20_000_000
"""Characters of pictures in one request; servers cut the connection rather than say 413."""


class ChatModel:
    """A `VisionModel` over HTTP. Enter it as an async context manager to close its connections."""

    def __init__(
        self,
        config: ClientConfig,
        ledger: Ledger,
        api_key: str | None = None,
        tariff: Tariff | None = None,
        purse: Purse | None = None,
    ) -> None:
        """The key is read from OPENROUTER_API_KEY; only a `--base-url` of one's own needs none.

        Without `tariff` no price is known, without `purse` there is no cap.
        """
        self.name = config.model
        self.config = config
        self.gate = Gate(config.concurrency)
        self.purse = purse or Purse()
        self.n_sent = 0
        """HTTP requests."""
        self.n_answered = 0
        """Answers received, usable or not."""
        self._tariff = tariff or Tariff(config.model)
        self._ledger = ledger
        self._server = Transport(config, api_key)
        self._forms = FormLadder(ledger, form_scope(config))
        self._n_failed = 0
        self._fatal: UserError | None = None

    async def __aenter__(self) -> ChatModel:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.close()

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
        request = request_of(
            question, self.name, public_url(self.config.base_url), _parameters(self.config)
        )
        key = key_of(request)
        try:
            return await self._ledger.once(
                key,
                request,
                lambda: self._send(question, key),
                about=question.about,
                estimated=prompt_tokens(question, self.name).total,
            )
        except ReplyError as error:
            self._count(error)
            raise

    async def _send(self, question: Question, key: str) -> Paid:
        """Ask until there is an answer, or no hope of one."""
        if sum(len(picture.base64) for picture in question.pictures) > _LARGEST:
            raise ReplyError("bad_request", f"the pictures are over {_LARGEST / 1e6:.0f} MB")
        patience = _Patience(self.config, has_answered=lambda: self.n_answered > 0)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_transient),
            wait=patience.wait,
            stop=patience.is_over,
            sleep=self.gate.rest,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    paid = await self._try_forms(question, key, patience)
        except ReplyError as error:
            error.usage = patience.wasted
            raise
        self.n_answered += 1
        self._n_failed = 0
        return paid

    async def _try_forms(self, question: Question, key: str, patience: _Patience) -> Paid:
        """One request, or one for each form of asking for JSON that turns out not to be known."""
        while True:
            form = self._form(question)
            async with self.gate.slot() as sent_in:
                try:
                    paid = await self._in_budget(question, key, form, patience)
                except FormUnsupported as error:
                    if question.schema is None or not self._forms.step_down(form):
                        raise ReplyError("bad_request", str(error)) from None
                    continue
                except ReplyError as error:
                    if error.kind in _TOO_MUCH:
                        self.gate.slow_down(sent_in, error.retry_after)
                    raise
                self.gate.record_answer()
            if question.schema is not None:
                self._forms.record_answer(form, paid.reply.text, paid.reply.provider)
            return paid

    async def _in_budget(
        self, question: Question, key: str, form: Form, patience: _Patience
    ) -> Paid:
        """One request under the cap; what it may cost is on record before it is sent."""
        worst = self._tariff.worst(question)
        ticket = await self.purse.reserve(worst)
        if self._fatal is not None or is_stopped():
            self.purse.settle(ticket, 0.0)
            raise self._fatal or asyncio.CancelledError
        risk = self._ledger.risk(key, question.about, worst) if worst else None
        try:
            self.n_sent += 1
            with patience.working() as seconds:
                reply = await self._server.send(question, form, seconds, key)
        except BaseException as error:
            if isinstance(error, ReplyError):
                patience.wasted += error.usage
            self._close_account(question, ticket, risk, error)
            raise
        usd = self._tariff.billed(question, reply.usage)
        self.purse.settle(ticket, usd)
        usage = dataclasses.replace(reply.usage, usd=usd)
        return Paid(dataclasses.replace(reply, usage=usage), risk)

    def _close_account(
        self, question: Question, ticket: int, risk: int | None, error: BaseException
    ) -> None:
        """An error is not billed, unless the answer was lost on its way or says what it cost."""
        if isinstance(error, UserError):
            self._fatal = error
        if not isinstance(error, ReplyError | UserError | FormUnsupported):
            self.purse.lose(ticket)  # cancelled
            return
        if isinstance(error, ReplyError) and error.lost:
            self.purse.lose(ticket)
            return
        billed = 0.0
        if isinstance(error, ReplyError) and error.usage != NOTHING_USED:
            usd = self._tariff.billed(question, error.usage)
            billed = 0.0 if math.isnan(usd) else usd
        self.purse.settle(ticket, billed)
        if risk is not None:
            self._ledger.settle(risk, billed)

    def _form(self, question: Question) -> Form:
        return FORMS[-1] if question.schema is None else self._forms.form

    def _count(self, error: ReplyError) -> None:
        """Stop a run in which all questions fail: the server or the model cannot do it."""
        if error.kind == "moderated" or (error.kind == "bad_request" and self.n_answered):
            return  # of this question, not of the server
        self._n_failed += 1
        if self._n_failed < (_HOPELESS if self.n_answered else self.config.n_tries):
            return
        url = public_url(self.config.base_url)
        what = "no question was" if not self.n_answered else f"{self._n_failed} questions were not"
        self._fatal = UserError(
            f"{what} answered by {self.name} at {url} ({error}); "
            "check --model and --base-url, then run the same command",
            FAILURES,
        )
        raise self._fatal from None


@dataclass
class _Patience:
    """What one question has left of its tries and its time; its place in the line is free."""

    config: ClientConfig
    has_answered: Callable[[], bool]
    """Whether this server has answered anything yet."""
    used: float = 0.0
    """Seconds of requests and of waits between them."""
    wasted: Usage = NOTHING_USED
    """What requests without an answer were billed."""

    @contextmanager
    def working(self) -> Iterator[float]:
        """Time one request; gives the seconds that it may take."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield min(self.config.timeout, max(1.0, self.config.deadline - self.used))
        finally:
            self.used += loop.time() - started

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds: random and doubling, on top of what the server asked for."""
        jitter = tenacity.wait_random_exponential(self.config.first_wait, max=60.0)(state)
        error = _error_of(state)
        return (error.retry_after or 0.0) + jitter

    def is_over(self, state: tenacity.RetryCallState) -> bool:
        error = _error_of(state)
        patient = error.kind in _PATIENT and (self.has_answered() or error.kind != "connection")
        n_tries = self.config.n_tries * (2 if self.has_answered() else 1)
        if error.usage.usd > 0:
            n_tries = _BILLED_TRIES
        if not patient and state.attempt_number >= n_tries:
            return True
        self.used += state.upcoming_sleep
        return self.used >= self.config.deadline


def _error_of(state: tenacity.RetryCallState) -> ReplyError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ReplyError)
    return error


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ReplyError) and is_transient(error.kind)


def _parameters(config: ClientConfig) -> dict[str, Any]:
    """What changes an answer beside the question: part of its key."""
    reasoning = {"reasoning": config.reasoning} if config.reasoning else {}
    return {**reasoning, **({"provider": config.routing} if config.routing else {})}


def _usable(reply: Reply) -> Reply:
    if reply.finish_reason in ("refusal", "content_filter"):
        raise _unusable(reply, "refused", reply.text[:200] or "cut by a content filter")
    if reply.finish_reason == "length":
        raise _unusable(reply, "truncated", "the answer was cut twice by max_tokens")
    return reply


def _unusable(reply: Reply, kind: Kind, message: str) -> ReplyError:
    return ReplyError(kind, message, calls=reply.calls, usage=reply.usage, stored=reply.stored)
