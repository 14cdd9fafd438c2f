"""A label and lettered images -> a score of each image, 0 to 100: does it fit the label?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from interp.llm.failures import scrub
from interp.llm.prompts import fingerprint, render
from interp.llm.repair import Asker
from interp.llm.types import Question, ReplyError, VisionModel, is_transient
from interp.pictures.grid import FIRST, Tile
from interp.pictures.painter import Layout, Painter
from interp.records.wording import cut_description, cut_label
from interp.score.answer import detect_schema, parse_scores

COLUMNS = 5
"""Of a grid."""
CELL = 224
MAX_TOKENS = 400
"""Ten letters with a number each take about 80."""

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


class VlmJudge(Asker):
    """Asks a vision model about some lettered images; on an unusable answer it asks once again."""

    def __init__(
        self, model: VisionModel, layout: Layout = "grid", *, again: bool = False, server: str = ""
    ) -> None:
        """`again`: ask anew what was answered in an unusable way before; `server` as in `Score`."""
        super().__init__(model, again=again)
        self._painter = Painter(layout, COLUMNS, CELL)
        self.name = model.name
        self.prompt = judge_prompt(layout)
        self.server = server

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        """A score for each letter; None for those that a usable answer leaves out.

        Only label and description are told: no truth, no base rate, no class, no file name.
        """
        question = await asyncio.to_thread(self.question, label, description, pictures, about)
        if question is None:
            return Judgement({})
        codes = question.codes
        try:
            answered = await self.ask(
                question.asked, lambda text: parse_scores(text, codes), _is_whole
            )
        except ReplyError as error:
            nothing = dict.fromkeys(codes, None)
            words = scrub(error.message)
            return Judgement(nothing, error.kind, error.calls, error.usage.usd, words)
        lost = ", ".join(code for code, score in answered.value.items() if score is None)
        judgement = Judgement(answered.value, None, answered.calls, answered.usage.usd)
        if not lost:
            return judgement
        return replace(judgement, failure="wrong_keys", reason=f"no number for {lost}")

    def question(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> GridQuestion | None:
        """What `judge` asks first; None where no picture can be read."""
        tiles = pictures()
        if not tiles:
            return None
        codes = [tile.letter for tile in tiles]
        text = render(
            "detect",
            codes=codes,
            label=cut_label(label)[0],
            description=cut_description(description)[0],
        )
        asked = Question(
            system=render("system", layout=self._painter.layout),
            parts=(*self._painter.parts(tiles), text),
            schema=detect_schema(codes),
            schema_name="detect",
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            prompt=self.prompt,
            about=about,
        )
        return GridQuestion(asked, codes)


def _is_whole(scores: dict[str, float | None]) -> bool:
    return None not in scores.values()


class GridQuestion(NamedTuple):
    """A question about some lettered images."""

    asked: Question
    codes: list[str]


def judge_prompt(layout: Layout) -> str:
    """Fingerprint of the judge's templates, schema and settings."""
    settings = {"cell": CELL, "columns": COLUMNS, "layout": layout}
    return fingerprint(("system", "detect", "repair"), detect_schema(FIRST), settings)
