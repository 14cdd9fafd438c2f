"""Who tests a label: anything that scores pictures by how well they meet it, 0 to 100."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from PIL import Image

from interp.asking import ask_until_usable
from interp.grid import FIRST, Tile, compose
from interp.prompts import fingerprint, render
from interp.questions import Question, ReplyError, VisionModel, is_transient
from interp.replies import detect_schema, parse_scores
from interp.schedule import entered

COLUMNS = 5
CELL = 224
MAX_TOKENS = 400
"""Ten letters with a number each take about 80."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of some pictures."""

    scores: dict[str, float | None]
    """Code -> 0 (label does not fit) to 100 (fits), 50 = cannot tell; None = no usable answer."""
    failure: str | None = None
    """Why answers are missing; None when none is."""
    calls: tuple[str, ...] = ()
    """Keys in the ledger."""
    usd: float = 0.0

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
        self, label: str, description: str, images: Sequence[Image.Image], codes: Sequence[str]
    ) -> Judgement:
        """One score or None for every code. Raises `UserError` when no question can be answered."""
        ...


class VlmJudge:
    """Asks a vision model about one lettered grid; on an unusable answer it asks once again."""

    def __init__(self, model: VisionModel) -> None:
        self._model = model
        self.name = model.name
        self.prompt = fingerprint(
            ("system", "detect", "repair"), detect_schema(FIRST), {"cell": CELL, "columns": COLUMNS}
        )
        self._open = AsyncExitStack()

    async def __aenter__(self) -> VlmJudge:
        await self._open.enter_async_context(entered((self._model,)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def judge(
        self, label: str, description: str, images: Sequence[Image.Image], codes: Sequence[str]
    ) -> Judgement:
        """Scores for `codes`, which are the letters on the grid; all None when there is no answer.

        Only label and description are told: no truth, no base rate, no class, no file name.
        """
        tiles = [Tile(code, image) for code, image in zip(codes, images, strict=True)]
        picture = await asyncio.to_thread(compose, tiles, COLUMNS, CELL)
        question = Question(
            system=render("system"),
            parts=(picture, render("detect", codes=codes, label=label, description=description)),
            schema=detect_schema(codes),
            schema_name="detect",
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            prompt=self.prompt,
        )
        try:
            answered = await ask_until_usable(
                self._model, question, lambda text: parse_scores(text, codes)
            )
        except ReplyError as error:
            nothing = dict.fromkeys(codes, None)
            return Judgement(nothing, error.kind, error.calls, error.usage.usd)
        return Judgement(dict(answered.value), None, answered.calls, answered.usage.usd)
