"""One in-flight budget for all questions to one model: who may send now, oldest latent first.

A fixed budget stays what it is. An adaptive one follows TCP (Jacobson 1988): it doubles with every
round of answers until the server first says "too much", is halved then (once for all requests that
were in flight together) and grows by one a round from there.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import count

PLACE: ContextVar[int] = ContextVar("PLACE", default=0)
"""Place in the line of the item that this task works on; `scheduler.run_all` sets it."""

STOPPED: ContextVar[asyncio.Event | None] = ContextVar("STOPPED", default=None)
"""Set when the run that this task works for has been stopped; `scheduler.run_all` does it."""

START, LEAST, MOST = 8, 1, 256
"""Bounds of an adaptive budget, in requests. One Python process keeps about 200 busy."""
_AHEAD = 8
"""Least number of items that are prepared beyond the budget, so that it never waits for them."""
_MEMORY = 16
"""Outcomes over which the share of throttled requests is averaged."""


def is_stopped() -> bool:
    """Whether the run that this task works for has been stopped: nothing more may be sent."""
    stopped = STOPPED.get()
    return stopped is not None and stopped.is_set()


class Gate:
    """At most `limit` requests at once. Of one event loop; not for threads."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: requests in flight; None adapts it to what the server takes."""
        self.is_adaptive = limit is None
        self.in_flight = 0
        self.n_resting = 0
        """Questions that wait before they try again; they hold no slot."""
        self._limit = float(START if limit is None else limit)
        self._starting = self.is_adaptive
        self._round = 0
        self._throttled = 0.0
        self._opens_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._serial = count()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def room(self) -> int:
        """Items to have in work: enough to fill the budget while others rest or are prepared."""
        return min(8 * self.limit, self.limit + max(_AHEAD, self.limit // 2) + self.n_resting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Hold one place in the budget; gives the round to report with."""
        await self._enter()
        try:
            yield self._round
        finally:
            self.in_flight -= 1
            self._grant()

    async def rest(self, seconds: float) -> None:
        """Sleep without a slot, so that others are sent meanwhile."""
        self.n_resting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.n_resting -= 1

    def record_answer(self) -> None:
        """A request was taken: an adaptive budget grows, if more than half of it is in use."""
        self._throttled -= self._throttled / _MEMORY
        if self.is_adaptive and 2 * self.in_flight > self._limit:
            self._limit = min(MOST, self._limit + (1.0 if self._starting else 1.0 / self._limit))
            self._grant()

    def slow_down(self, sent_in: int, wait: float | None) -> None:
        """A request of round `sent_in` was turned away, with the server's Retry-After in seconds.

        Where most requests are turned away, nothing is sent before that time is over.
        """
        self._throttled += (1 - self._throttled) / _MEMORY
        if self.is_adaptive and sent_in == self._round:
            self._limit = max(LEAST, self._limit / 2)
            self._starting = False
            self._round += 1
        if wait and self._throttled > 0.5:
            self._close_for(wait)

    async def _enter(self) -> None:
        if self._is_open() and self.in_flight < self.limit and not self._waiting:
            self.in_flight += 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (PLACE.get(), next(self._serial), granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.in_flight -= 1
                self._grant()
            raise

    def _grant(self) -> None:
        while self._waiting and self._is_open() and self.in_flight < self.limit:
            _, _, granted = heapq.heappop(self._waiting)
            if not granted.done():  # cancelled ones are dropped here
                self.in_flight += 1
                granted.set_result(None)

    def _is_open(self) -> bool:
        return asyncio.get_running_loop().time() >= self._opens_at

    def _close_for(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        opens_at = loop.time() + seconds
        if opens_at <= self._opens_at:
            return
        self._opens_at = opens_at
        if self._timer is not None:
            self._timer.cancel()
        # A clock may fire a moment early; what then finds the gate closed waits for nobody.
        self._timer = loop.call_at(opens_at + 0.001, self._grant)
