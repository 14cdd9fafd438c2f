"""A vision model behind an OpenAI-compatible server: one question in, one stored answer out.

Every way in which a question can go wrong ends in a `ReplyError` with a kind (this question failed)
or a `UserError` (the run must stop). Waiting, retrying, the budget in flight and the cap on
spending are here and nowhere else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any

import tenacity

from interp.llm.concurrency import Gate, is_stopped
from interp.llm.cost.budget import Purse
from interp.llm.cost.tariff import Tariff
from interp.llm.cost.tokens import prompt_tokens
from interp.llm.ledger.ledger import Ledger, Paid, key_of, request_of
from interp.llm.replies.json_text import without_thoughts
from interp.llm.server.dialect import THOUGHTS, Dialect, Unsupported
from interp.llm.server.errors import TOO_LONG
from interp.llm.server.http import ClientConfig, Transport, dialect_scope
from interp.llm.server.ladder import Ladder
from interp.llm.server.patience import Patience, is_worth_waiting
from interp.llm.types import (
    NOTHING_USED,
    Kind,
    Question,
    Reply,
    ReplyError,
    public_url,
)
from sae.core.errors import FAILURES, UserError

__all__ = ["ChatModel", "ClientConfig"]

_TOO_MUCH = frozenset({"rate_limit", "in_flight", "overloaded"})
"""The server gets more requests than it takes."""
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
        self._ladder = Ladder(ledger, dialect_scope(config))
        if config.max_tokens is not None:
            self._ladder.note_room(config.max_tokens)
        self._n_failed = 0
        self._fatal: UserError | None = None

    async def __aenter__(self) -> ChatModel:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.close()

    async def ask(self, question: Question) -> Reply:
        """A usable text, stored before it is returned; one cut short is asked again with more room.

        Raises `ReplyError` for this question and `UserError` when no question can be answered.
        """
        reply = await self._answer(question, question.max_tokens)
        if reply.finish_reason != "length":
            return _usable(reply)
        stored = [one for room in self._rooms(question) if (one := self._stored(question, room))]
        cut = [reply, *(one for one in stored if one.finish_reason == "length")]
        reply = next((one for one in stored if one.finish_reason != "length"), reply)
        while reply.finish_reason == "length" and (longer := self._longer(question, cut)):
            try:
                reply = await self._answer(*longer)
            except ReplyError as error:
                earlier = _join(cut)
                error.calls = earlier.calls + error.calls
                error.usage = earlier.usage + error.usage
                raise
            cut += [reply] if reply.finish_reason == "length" else []
        return _usable(_join(cut if reply.finish_reason == "length" else [*cut, reply]))

    def _rooms(self, question: Question) -> list[int]:
        """Tokens under which a longer answer may be stored: twice as many, some for thoughts."""
        own = question.max_tokens
        rooms = {most + step for most in (own, 2 * own) for step in THOUGHTS}
        return sorted((rooms | set(self._ladder.rooms)) - {own})

    def _longer(self, question: Question, cut: list[Reply]) -> tuple[Question, int] | None:
        """What to ask after these cut answers, and under which room; None: no more to be had."""
        sent = cut[-1].room or question.max_tokens
        if self.config.max_tokens is not None:
            most = self.config.max_tokens
            return (question, most) if most > sent else None
        was_doubled = any(not _is_all_thought(reply) for reply in cut[:-1])
        if not _is_all_thought(cut[-1]) and was_doubled:
            return None
        own = question.max_tokens * (2 if was_doubled or not _is_all_thought(cut[-1]) else 1)
        asked, room = dataclasses.replace(question, max_tokens=own), own
        if _is_all_thought(cut[-1]):
            self._ladder.think_more(max(0, sent - own))
            room += self._ladder.dialect.thoughts
        return (asked, room) if self._ladder.dialect.tokens(asked) > sent else None

    def _stored(self, question: Question, room: int) -> Reply | None:
        return self._ledger.get(key_of(self._request(question, room)))

    def _request(self, question: Question, room: int) -> dict[str, Any]:
        """What an answer is filed under: its room is not what was sent, which is learned."""
        asked = dataclasses.replace(question, max_tokens=room)
        url = public_url(self.config.base_url)
        return request_of(asked, self.name, url, _parameters(self.config))

    async def _answer(self, question: Question, room: int) -> Reply:
        request = self._request(question, room)
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
        patience = Patience(self.config, has_answered=lambda: self.n_answered > 0)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_worth_waiting),
            wait=patience.wait,
            stop=patience.is_over,
            sleep=self.gate.rest,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    paid = await self._try_dialects(question, key, patience)
        except ReplyError as error:
            error.usage = patience.wasted
            raise
        self.n_answered += 1
        self._n_failed = 0
        return paid

    async def _try_dialects(self, question: Question, key: str, patience: Patience) -> Paid:
        """One request, or one more after each field that turns out not to be taken."""
        while True:
            sent = self._ladder.dialect.for_schema(question)
            async with self.gate.slot() as sent_in:
                try:
                    paid = await self._in_budget(question, key, sent, patience)
                except Unsupported as refused:
                    self._step(question, sent, refused)
                    continue
                except ReplyError as error:
                    if error.message.startswith(TOO_LONG):
                        self._step(question, sent, Unsupported("most_tokens", error))
                        continue
                    if error.kind in _TOO_MUCH:
                        self.gate.slow_down(sent_in, error.retry_after)
                    raise
                self.gate.record_answer()
            if paid.reply.finish_reason != "length":
                self._ladder.record_answer(sent, paid.reply.text, paid.reply.provider)
            return paid

    def _step(self, question: Question, sent: Dialect, refused: Unsupported) -> None:
        """Have another dialect for the next request, or raise the refusal's own error."""
        tokens = sent.tokens(question, self.config.max_tokens)
        stepped = self._ladder.step(sent, refused, question, tokens)
        if not stepped or self._ladder.dialect.for_schema(question) == sent:
            raise refused.error from None

    async def _in_budget(
        self, question: Question, key: str, dialect: Dialect, patience: Patience
    ) -> Paid:
        """One request under the cap; what it may cost is on record before it is sent."""
        worst = self._tariff.worst(question, dialect.most(question, self.config.max_tokens))
        ticket = await self.purse.reserve(worst)
        if self._fatal is not None or is_stopped():
            self.purse.settle(ticket, 0.0)
            raise self._fatal or asyncio.CancelledError
        risk = self._ledger.risk(key, question.about, worst) if worst else None
        try:
            self.n_sent += 1
            with patience.working() as seconds:
                reply = await self._server.send(question, dialect, seconds, key)
        except BaseException as error:
            if isinstance(error, ReplyError):
                patience.wasted += error.usage
            self._close_account(question, ticket, risk, error)
            raise
        usd = self._tariff.billed(question, reply.usage)
        self.purse.settle(ticket, usd)
        usage = dataclasses.replace(reply.usage, usd=usd)
        room = dialect.tokens(question, self.config.max_tokens)
        return Paid(dataclasses.replace(reply, usage=usage, room=room), risk)

    def _close_account(
        self, question: Question, ticket: int, risk: int | None, error: BaseException
    ) -> None:
        """An error is not billed, unless the answer was lost on its way or says what it cost."""
        if isinstance(error, UserError):
            self._fatal = error
        if not isinstance(error, ReplyError | UserError | Unsupported):
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


def _parameters(config: ClientConfig) -> dict[str, Any]:
    """What changes an answer beside the question: part of its key."""
    reasoning = {"reasoning": config.reasoning} if config.reasoning else {}
    return {**reasoning, **({"provider": config.routing} if config.routing else {})}


def _join(replies: list[Reply]) -> Reply:
    """The last of the answers to one question, with what all have cost."""
    *earlier, last = replies
    usage, calls = last.usage, tuple(key for reply in earlier for key in reply.calls)
    for reply in earlier:
        usage += reply.usage
    return dataclasses.replace(last, usage=usage, earlier=calls)


def _is_all_thought(reply: Reply) -> bool:
    """Whether thoughts took the room of the answer."""
    if not without_thoughts(reply.text).strip():
        return True
    return 2 * reply.n_thought > reply.usage.completion_tokens


def _usable(reply: Reply) -> Reply:
    if reply.finish_reason in ("refusal", "content_filter"):
        raise _unusable(reply, "refused", reply.text[:200] or "cut by a content filter")
    if reply.finish_reason == "length":
        raise _unusable(reply, "truncated", _why_cut(reply))
    return reply


def _why_cut(reply: Reply) -> str:
    used = reply.n_thought or reply.usage.completion_tokens
    if _is_all_thought(reply):
        return (
            f"thoughts took {used:,} of {reply.room or used:,} tokens and left no answer; give "
            "more with --max-tokens, or have less thought with --reasoning low or none"
        )
    times = f"{len(reply.calls)} times" if len(reply.calls) != 2 else "twice"
    return f"the answer was cut {times} by max_tokens; give more with --max-tokens"


def _unusable(reply: Reply, kind: Kind, message: str) -> ReplyError:
    return ReplyError(kind, message, calls=reply.calls, usage=reply.usage, stored=reply.stored)
