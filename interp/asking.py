"""Ask until the answer can be used: once, and once more quoting what was wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from interp.prompts import render
from interp.questions import Question, Reply, ReplyError, Usage, VisionModel

Value = TypeVar("Value")


@dataclass(frozen=True)
class Answered(Generic[Value]):
    """A usable answer, and everything that was paid for it."""

    value: Value
    reply: Reply
    """The one that could be used."""
    calls: tuple[str, ...]
    """Ledger keys of all that was asked, the unusable answer too."""
    usage: Usage
    """Of all of `calls`."""

    @property
    def usd(self) -> float:
        """NaN when the server does not say."""
        return self.usage.usd


async def ask_until_usable(
    model: VisionModel, question: Question, parse: Callable[[str], Value]
) -> Answered[Value]:
    """Ask, and on an answer that `parse` refuses with a `ReplyError` ask one repair question.

    Raises `ReplyError` with all calls and their usage when there is no usable answer.
    """
    reply = await model.ask(question)
    try:
        return Answered(parse(reply.text), reply, reply.calls, reply.usage)
    except ReplyError as error:
        fault = error.message
    try:
        repaired = await model.ask(_repair(question, fault))
    except ReplyError as error:
        raise _paid(error, reply.calls + error.calls, reply.usage + error.usage) from None
    calls, usage = reply.calls + repaired.calls, reply.usage + repaired.usage
    try:
        return Answered(parse(repaired.text), repaired, calls, usage)
    except ReplyError as error:
        raise _paid(error, calls, usage) from None


def _repair(question: Question, fault: str) -> Question:
    parts = (*question.parts, render("repair", fault=fault))
    return dataclasses.replace(question, parts=parts, attempt=question.attempt + 1)


def _paid(error: ReplyError, calls: tuple[str, ...], usage: Usage) -> ReplyError:
    return ReplyError(error.kind, error.message, error.retry_after, calls=calls, usage=usage)
