"""Lettered pictures and a prompt's values -> a question, and a number for each letter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from interp.llm.failures import scrub
from interp.llm.prompts import fingerprint, render
from interp.llm.repair import Asker
from interp.llm.types import Question, ReplyError, VisionModel
from interp.pictures.grid import FIRST, Tile
from interp.pictures.painter import Layout, Painter, draw
from interp.records.tasks import DETECT
from interp.score.answer import detect_schema
from interp.score.judge import Judgement
from interp.score.kinds.foils import (
    MOST_FOILS,
    TEMPLATE,
    Graded,
    foils_schema,
    keys_of,
    parse_graded,
)

COLUMNS = 5
"""Of a grid."""
CELL = 224
MAX_TOKENS = 400
"""Ten letters with a number each take about 80."""
FOIL_TOKENS = 100
"""For each list of ten numbers, which takes about 40."""


class GridQuestion(NamedTuple):
    """A question about some letters."""

    asked: Question
    codes: list[str]
    n_foils: int = 0
    """Labels beside the one in question that the pictures are graded by too."""


class GridAsker(Asker):
    """Asks a vision model for a number under each letter; on an unusable answer it asks again."""

    def __init__(
        self,
        model: VisionModel,
        template: str,
        layout: Layout = "grid",
        *,
        most: int = 100,
        outlined: bool = False,
        again: bool = False,
        server: str = "",
    ) -> None:
        """`template`: in prompts/; `most`: the largest number; `outlined`: show the marked picture
        only; `again`: ask anew what was answered in an unusable way before; `server` as in `Score`.
        """
        super().__init__(model, again=again)
        self._painter = Painter(layout, COLUMNS, CELL)
        self._template, self._most, self._outlined = template, most, outlined
        self.name = model.name
        self.prompt = grid_prompt(template, layout)
        self.server = server

    async def answer(self, pose: Callable[[], GridQuestion | None]) -> Judgement:
        """A number for each letter; None for those that a usable answer leaves out.

        `pose` reads and draws the pictures, in a thread; None where none can be read.
        """
        question = await asyncio.to_thread(_drawn, pose)
        if question is None:
            return Judgement({})
        codes = question.codes
        try:
            answered = await self.ask(
                question.asked,
                lambda text: parse_graded(text, codes, question.n_foils, self._most),
                _is_whole,
            )
        except ReplyError as error:
            nothing = dict.fromkeys(codes, None)
            words = scrub(error.message)
            return Judgement(nothing, error.kind, error.calls, error.usage.usd, words)
        own, foils = answered.value
        lost = ", ".join(code for code, score in own.items() if score is None)
        judgement = Judgement(own, None, answered.calls, answered.usage.usd, foils=foils)
        if not lost:
            return judgement
        return replace(judgement, failure="wrong_keys", reason=f"no number for {lost}")

    def pose(
        self,
        tiles: Sequence[Tile],
        values: Mapping[str, Any],
        about: str = "",
        codes: Sequence[str] = (),
        foils: Sequence[str] = (),
    ) -> GridQuestion | None:
        """What is asked of these tiles; `codes`: the letters to answer for, if not the tiles'.

        `foils`: labels that a question of `detect` has graded behind its own.
        """
        if not tiles:
            return None
        letters = [tile.letter for tile in tiles]
        wanted = list(codes) or letters
        template, n = TEMPLATE if foils else self._template, len(foils)
        beside = {"foils": dict(zip(keys_of(n), foils, strict=True))} if foils else {}
        text = render(template, codes=letters, **values, **beside)
        asked = Question(
            system=render("system", layout=self._painter.layout),
            parts=(*self._painter.parts(tiles, only_outlined=self._outlined), text),
            schema=foils_schema(wanted, n) if foils else detect_schema(wanted),
            schema_name=template,
            max_tokens=MAX_TOKENS + FOIL_TOKENS * n,
            temperature=0.0,
            prompt=foils_prompt(self._painter.layout) if foils else self.prompt,
            about=about,
        )
        return GridQuestion(asked, wanted, n)


def _drawn(pose: Callable[[], GridQuestion | None]) -> GridQuestion | None:
    question = pose()
    if question is not None:
        draw(question.asked.parts)
    return question


def _is_whole(graded: Graded) -> bool:
    return None not in graded.own.values()


def grid_prompt(template: str, layout: Layout) -> str:
    """Fingerprint of a task's templates, schema and settings."""
    return fingerprint(("system", template, "repair"), detect_schema(FIRST), _settings(layout))


def foils_prompt(layout: Layout) -> str:
    """The same of a question of `detect` with foils."""
    names = ("system", DETECT, TEMPLATE, "repair")
    return fingerprint(names, foils_schema(FIRST, MOST_FOILS), _settings(layout))


def _settings(layout: Layout) -> dict[str, Any]:
    return {"cell": CELL, "columns": COLUMNS, "layout": layout}
