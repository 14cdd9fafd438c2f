"""A question's failed tries -> how long to wait for the next one, and whether there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tenacity

from interp.llm.server.http import ClientConfig
from interp.llm.types import NOTHING_USED, ReplyError, Usage, is_transient

_PATIENT = frozenset({"rate_limit", "in_flight", "connection"})
"""What may last: waited for until the deadline. Other faults get a few tries, since servers also
send 500 for what will never work."""
_BILLED_TRIES = 2
"""For an answer without text that is billed all the same: a model that only thought, say."""


@dataclass
class Patience:
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
        """Whether the question has had its tries or its time."""
        error = _error_of(state)
        patient = error.kind in _PATIENT and (self.has_answered() or error.kind != "connection")
        n_tries = self.config.n_tries * (2 if self.has_answered() else 1)
        if error.usage.usd > 0:
            n_tries = _BILLED_TRIES
        if not patient and state.attempt_number >= n_tries:
            return True
        self.used += state.upcoming_sleep
        return self.used >= self.config.deadline


def is_worth_waiting(error: BaseException) -> bool:
    """Whether the same request later can end otherwise."""
    return isinstance(error, ReplyError) and is_transient(error.kind)


def _error_of(state: tenacity.RetryCallState) -> ReplyError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ReplyError)
    return error
