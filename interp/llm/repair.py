"""Ask until the answer can be used: once, and once more quoting what was wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from interp.llm.prompts import render
from interp.llm.scheduler import enter_all
from interp.llm.types import NOTHING_USED, Question, Reply, ReplyError, Usage, VisionModel

Value = TypeVar("Value")

_ANSWERED = frozenset({"refused", "truncated"})
"""Failures that are answers all the same: stored, and not sent again by themselves."""


@dataclass(frozen=True)
class Answered(Generic[Value]):
    """A usable answer, and everything that was paid for it."""

    value: Value
    reply: Reply
    """The one that could be used."""
    calls: tuple[str, ...]
    """Ledger keys of all that was asked, the unusable answers too."""
    usage: Usage
    """Of all of `calls`."""

    @property
    def usd(self) -> float:
        """NaN when the server does not say."""
        return self.usage.usd


class Asker:
    """A vision model that is asked until its answer can be used.

    As a context manager it opens the model, where that has connections, and closes it.
    """

    filed = ""
    """What answers are filed under, in the place of the first word of `Question.about`."""

    def __init__(self, model: VisionModel, *, again: bool = False) -> None:
        """`again`: ask anew what was answered in an unusable way before."""
        self._model = model
        self._again = again
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(enter_all((self._model,)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def ask(
        self,
        question: Question,
        parse: Callable[[str], Value],
        is_whole: Callable[[Value], bool] = lambda _value: True,
    ) -> Answered[Value]:
        """See `ask_until_usable`."""
        if self.filed:
            question = file_under(question, self.filed)
        return await ask_until_usable(
            self._model, question, parse, again=self._again, is_whole=is_whole
        )


def file_under(question: Question, stage: str) -> Question:
    """The same question for another stage's account."""
    return dataclasses.replace(question, about=f"{stage} {question.about.rpartition(' ')[2]}")


async def ask_until_usable(
    model: VisionModel,
    question: Question,
    parse: Callable[[str], Value],
    *,
    again: bool = False,
    is_whole: Callable[[Value], bool] = lambda _value: True,
) -> Answered[Value]:
    """Ask, and on an answer that `parse` refuses with a `ReplyError` ask one repair question.

    `again`: where the ledger already holds the unusable answers to both, ask both anew, and so
    where it holds one that is usable but not whole; that one is taken if no better one comes.
    Raises `ReplyError` with all calls and their usage when there is no usable answer.
    """
    calls: tuple[str, ...] = ()
    asking, usage, is_new = question, NOTHING_USED, False
    part: Answered[Value] | None = None
    while True:
        found = await _try(model, asking, parse)
        calls, usage = (*calls, *found.calls), usage + found.usage
        is_repair = asking.attempt % 2 == 1
        anew = dataclasses.replace(question, attempt=asking.attempt + 2 - is_repair)
        if isinstance(found, Answered):
            part = dataclasses.replace(found, calls=calls, usage=usage)
            if not (again and found.reply.stored) or is_whole(found.value):
                return part
            asking = anew
            continue
        is_new |= not found.stored
        if found.mendable and not is_repair:
            asking = _repair_question(question, asking.attempt + 1, found.error.message)
        elif again and not is_new:
            asking = anew
        elif part is not None:
            return dataclasses.replace(part, calls=calls, usage=usage)
        else:
            error = found.error
            raise ReplyError(error.kind, error.message, calls=calls, usage=usage)


class _Unusable(NamedTuple):
    """What came instead of a usable answer."""

    error: ReplyError
    calls: tuple[str, ...]
    usage: Usage
    stored: bool
    """Whether it came from the ledger."""
    mendable: bool
    """Whether a second question that quotes the fault may do."""


async def _try(
    model: VisionModel, question: Question, parse: Callable[[str], Value]
) -> Answered[Value] | _Unusable:
    try:
        reply = await model.ask(question)
    except ReplyError as error:
        stored = error.stored and error.kind in _ANSWERED
        return _Unusable(error, error.calls, error.usage, stored, mendable=False)
    try:
        return Answered(parse(reply.text), reply, reply.calls, reply.usage)
    except ReplyError as error:
        return _Unusable(error, reply.calls, reply.usage, reply.stored, mendable=True)


def _repair_question(question: Question, attempt: int, fault: str) -> Question:
    parts = (*question.parts, render("repair", fault=fault))
    return dataclasses.replace(question, parts=parts, attempt=attempt)
