"""The cap on spending: a request is sent only when its worst case still fits under it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from itertools import count

from sae.core.errors import BUDGET, UserError


class Purse:
    """What was spent, and what the requests in flight may cost at worst. USD throughout."""

    def __init__(
        self, cap: float | None = None, spent: float = 0.0, n_unknown: int = 0, risked: float = 0.0
    ) -> None:
        """`cap`: None for no bound. The others: what earlier calls of the same stage have used."""
        self.cap = cap
        self.spent = spent
        """Billed."""
        self.risked = risked
        """Worst case of requests whose outcome was lost: they may have been billed."""
        self.n_unknown = n_unknown
        """Answers for which nobody said what they cost."""
        self._above = 0.0
        """Most by which an answer has cost more than its worst case: then a price is wrong, and as
        much more may be asked for each request that follows."""
        self._held: dict[int, float] = {}
        self._serial = count()
        self._waiting: deque[tuple[float, asyncio.Future[int]]] = deque()

    @property
    def reserved(self) -> float:
        """Worst case of all requests in flight."""
        return math.fsum(self._held.values()) + self._above * len(self._held)

    @property
    def used(self) -> float:
        """Counts against the cap: billed, or perhaps billed."""
        return self.spent + self.risked

    async def reserve(self, worst: float) -> int:
        """Set `worst` aside, waiting in line for requests in flight to give back what is left over.

        Raises `UserError` (exit code 3) when it does not fit though nothing is in flight.
        """
        if not self._waiting and self._fits(worst):
            return self._hold(worst)
        if not self._held:
            raise self._is_empty(worst)
        ticket: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((worst, ticket))
        try:
            return await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                self.settle(ticket.result(), 0.0)
            raise

    def settle(self, ticket: int, billed: float) -> None:
        """A request has ended and `billed` is its cost; NaN counts as its worst case."""
        worst = self._held.pop(ticket)
        if math.isnan(billed):
            self.n_unknown += 1
            billed = worst + self._above
        self._above = max(self._above, billed - worst)
        self.spent += billed
        self._go_on()

    def lose(self, ticket: int) -> None:
        """A request has ended without a word: it may have been billed."""
        self.risked += self._held.pop(ticket) + self._above
        self._go_on()

    def _fits(self, worst: float) -> bool:
        return self.cap is None or self.used + self.reserved + worst + self._above <= self.cap

    def _hold(self, worst: float) -> int:
        ticket = next(self._serial)
        self._held[ticket] = worst
        return ticket

    def _go_on(self) -> None:
        """Let in those at the head of the line that fit now; turn away who never will."""
        while self._waiting:
            worst, ticket = self._waiting[0]
            if ticket.done():  # gave up
                pass
            elif self._fits(worst):
                ticket.set_result(self._hold(worst))
            elif not self._held:
                ticket.set_exception(self._is_empty(worst))
            else:
                return
            self._waiting.popleft()

    def _is_empty(self, worst: float) -> UserError:
        risked = f" (and ${self.risked:.4f} perhaps billed)" if self.risked else ""
        return UserError(
            f"--max-cost {self.cap:g} is reached: ${self.spent:.4f} spent{risked}, and the next "
            f"request may cost ${worst + self._above:.4f}; raise --max-cost, then run the same "
            "command: what was answered is not paid again",
            BUDGET,
        )
