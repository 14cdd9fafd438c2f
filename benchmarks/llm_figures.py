"""What a server saw of a client, in figures: pure functions over one row per request."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """One request, as the server saw it. Times in seconds of one clock."""

    question: str
    """Its name in the text: the same for a question, its retries and its repair."""
    digest: str
    """Of the whole body: the same for a question and its retries only."""
    arrived: float
    """The last byte of the body was read."""
    ended: float
    """The answer was written, or the client went away."""
    status: int
    """0 when nothing was answered."""
    completed: bool
    """A chat completion was written in full: somebody pays for it."""
    usable: bool
    """And it holds what was asked for."""
    usd: float
    early: bool
    """It came before the Retry-After that the server gave for the same question."""

    @property
    def stage(self) -> str:
        """The first word of the question's name."""
        return self.question.partition(" ")[0]


@dataclass(frozen=True)
class Figures:
    """A run as its server saw it; seconds, USD and counts."""

    n_requests: int
    n_answered: int
    """Questions with a usable answer."""
    req_per_s: float
    """Those, per second from the first arrival to the last answer."""
    n_most: int
    """Most requests in flight at once."""
    mean_share: float
    """Mean in flight / cap, from the first arrival to the last answer."""
    steady_share: float
    """The same in the steady state: from the moment when as many requests have come as the cap
    allows at once, to the moment when the last question comes for the first time."""
    steady_per_s: float
    """Usable answers per second in that time."""
    last_percent: float
    """Seconds from 99% of the usable answers to the last one."""
    n_paid_twice: int
    """Answers that were paid for although the same request had been answered before."""
    n_early: int
    """Retries sent before the Retry-After that the server had given."""
    n_throttled: int
    billed: float


def figures(rows: Sequence[Seen], cap: int) -> Figures:
    """All figures of one run that may have at most `cap` requests in flight."""
    usable = {row.question: row.ended for row in reversed(rows) if row.usable}
    answers = Counter(row.digest for row in rows if row.completed)
    begin = min((row.arrived for row in rows), default=0.0)
    end = max(usable.values(), default=begin)
    steps = in_flight(rows)
    first, last = _steady(rows, cap)
    return Figures(
        n_requests=len(rows),
        n_answered=len(usable),
        req_per_s=len(usable) / (end - begin) if end > begin else 0.0,
        n_most=max((n for _, n in steps), default=0),
        mean_share=mean_between(steps, begin, end) / cap,
        steady_share=mean_between(steps, first, last) / cap,
        steady_per_s=_rate(usable.values(), first, last),
        last_percent=last_percent(list(usable.values())),
        n_paid_twice=sum(n - 1 for n in answers.values()),
        n_early=sum(row.early for row in rows),
        n_throttled=sum(row.status == 429 for row in rows),
        billed=math.fsum(row.usd for row in rows),
    )


def in_flight(rows: Sequence[Seen]) -> list[tuple[float, int]]:
    """(moment, requests in flight from then on), in order of time."""
    changes = [(row.arrived, 1) for row in rows] + [(row.ended, -1) for row in rows]
    steps, n = [], 0
    for moment, change in sorted(changes):
        n += change
        steps.append((moment, n))
    return steps


def mean_between(steps: Sequence[tuple[float, int]], first: float, last: float) -> float:
    """Mean of a step function over [first, last]; NaN over nothing."""
    if not last > first:
        return math.nan
    area = 0.0
    for (moment, n), (until, _) in zip(steps, [*steps[1:], (last, 0)], strict=True):
        area += n * max(0.0, min(until, last) - max(moment, first))
    return area / (last - first)


def last_percent(moments: Sequence[float]) -> float:
    """Seconds from the moment when 99% of `moments` have passed to the last of them."""
    if not moments:
        return math.nan
    ordered = sorted(moments)
    return ordered[-1] - ordered[math.ceil(0.99 * len(ordered)) - 1]


def as_json(found: Figures) -> dict[str, Any]:
    """Plain JSON values; NaN is null."""
    values = asdict(found)
    return {name: None if _is_nan(value) else value for name, value in values.items()}


def _steady(rows: Sequence[Seen], cap: int) -> tuple[float, float]:
    arrivals = sorted(row.arrived for row in rows)
    if len(arrivals) <= cap:
        return 0.0, 0.0
    new: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: row.arrived):
        new.setdefault(row.question, row.arrived)
    return arrivals[cap - 1], max(new.values())


def _rate(moments: Iterable[float], first: float, last: float) -> float:
    if not last > first:
        return math.nan
    return sum(first < moment <= last for moment in moments) / (last - first)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
