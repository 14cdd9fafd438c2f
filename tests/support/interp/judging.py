"""Judging tasks on made-up latents, by a judge that answers each tile by a rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from interp.llm.types import Question
from interp.pictures.grid import FIRST, SECOND, Tile
from interp.records.tasks import TaskScore
from interp.records.types import Evidence, Example
from interp.score.judge import Judgement, Pictures
from interp.score.kinds.task import Case, Drawn, Posed, TaskKind
from interp.score.tasks import VlmTaskJudge, run_task, task_questions
from sae.data.view import Heat
from tests.support.interp.latents import explained, make_evidence, paint
from tests.support.interp.scoring import FakeModel, redness

GRID = (4, 4)
LABELS = ("red", "green", "blue", "yellow", "cyan", "white", "magenta")

Rule = Callable[[Tile, Drawn], float | None]


class Ruled:
    """A `TaskJudge` that gives each letter what the rule says of its tile; labels by `fits`."""

    name, prompt, server = "ruled", "p", ""

    def __init__(self, rule: Rule, fits: Callable[[str], float] = lambda _label: 0.0) -> None:
        self.rule, self.fits = rule, fits
        self.asked: list[tuple[list[Tile], Drawn]] = []

    async def put(self, posed: Posed, pictures: Pictures, about: str = "") -> Judgement:
        tiles, drawn = list(pictures()), posed.drawn
        self.asked.append((tiles, drawn))
        if drawn.labels:
            numbers = [self.fits(label) for label in drawn.labels]
            return Judgement(dict(zip(SECOND, numbers, strict=False)), calls=("k",), usd=0.25)
        scores = {tile.letter: self.rule(tile, drawn) for tile in tiles}
        failure = "refused" if None in scores.values() else None
        return Judgement(scores, failure, ("k",), 0.25)


def case(latent: int = 7, evidence: Evidence | None = None, heat: bool = False) -> Case:
    evidence = evidence or make_evidence(latent)
    others = [explained(100 + n, label) for n, label in enumerate(LABELS)]
    return Case(evidence, explained(latent), others, heat_of=heat_of if heat else lambda _e: None)


def heat_of(example: Example) -> Heat | None:
    """Two patches beside each other, where follows from the image."""
    values = np.zeros(GRID, np.uint8)
    row, column = int(example.image_id[:4], 16) % 4, int(example.image_id[4:8], 16) % 3
    values[row, column : column + 2] = (255, 200)
    return Heat(values, "squash")


def judge_task(kind: TaskKind, judge: Ruled, one: Case | None = None) -> TaskScore:
    return asyncio.run(run_task(kind, one or case(), judge, paint))


def red(tile: Tile, _drawn: Drawn) -> float:
    return redness(tile.image)


def truth_of(tile: Tile, drawn: Drawn) -> float:
    """What a perfect judge says: 100 where it is right."""
    return 100 * drawn.truth[FIRST.index(tile.letter)]


def questions(kind: TaskKind, one: Case | None = None) -> Sequence[Question]:
    judge = VlmTaskJudge(FakeModel(), kind)
    return list(task_questions(kind, one or case(), judge, paint))


def without(evidence: Evidence, *kinds: str) -> Evidence:
    return replace(evidence, examples=tuple(e for e in evidence.examples if e.kind not in kinds))
