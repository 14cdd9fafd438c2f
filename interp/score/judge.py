"""A label and lettered images -> a score of each image, 0 to 100: does it fit the label?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from interp.llm.types import is_transient
from interp.pictures.grid import Tile

Pictures = Callable[[], Sequence[Tile]]
"""Reads the pictures to judge, with their letters. A judge reads in a thread, and holds none while
it waits: they are many MB, and an answer may be minutes away."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of some pictures."""

    scores: dict[str, float | None]
    """Letter -> 0 (label does not fit) to 100 (fits), 50 = cannot tell; None = no usable answer."""
    failure: str | None = None
    """Why answers are missing; None when none is."""
    calls: tuple[str, ...] = ()
    """Keys in the ledger."""
    usd: float = 0.0
    reason: str = ""
    """The words behind `failure`."""
    foils: tuple[dict[str, float | None], ...] = ()
    """Letter -> grade by each other label that was asked about in the same question; {} where the
    answer has none of it."""

    @property
    def transient(self) -> bool:
        """Whether judging again later can end otherwise."""
        return self.failure is not None and is_transient(self.failure)


class Judge(Protocol):
    """Scores pictures without knowing which of them are positives, or how many."""

    @property
    def name(self) -> str: ...
    @property
    def prompt(self) -> str:
        """Fingerprint of the prompt, its schema and the settings that change the answer."""
        ...

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        """One score or None for every picture. Raises `UserError` when no question can be answered.

        `about`: what a paid answer is filed under (`Question.about`).
        """
        ...
