"""Judging tasks by CLIP: grades of a label, the odd one out, labels held against images."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from torch import Tensor

from interp.local.clip_encoder import ClipEncoder
from interp.local.models import LocalJudge
from interp.pictures.grid import SECOND, Tile
from interp.score.judge import Judgement, Pictures
from interp.score.kinds.task import Posed
from sae.core.errors import UserError


class LocalTaskJudge:
    """The local judge in the place of a vision model that answers the questions of a task."""

    server = ""

    def __init__(self, judge: LocalJudge, encoder: ClipEncoder) -> None:
        """`encoder`: the judge's."""
        self._judge, self._encoder = judge, encoder
        self.name, self.prompt = judge.name, judge.prompt

    async def put(self, posed: Posed, pictures: Pictures, about: str = "") -> Judgement:
        """An answer for every letter; none is ever missing. Raises `UserError` for `fuzz`."""
        kind, test, drawn = posed
        if kind.by_clip == "grades":
            assert test is not None
            judged = await self._judge.judge(test.label or "", test.description, pictures)
            scores = {
                letter: None if grade is None else round(grade * kind.most / 100, 2)
                for letter, grade in judged.scores.items()
            }
            return Judgement(scores)
        shown = await asyncio.to_thread(pictures)
        if not shown:
            return Judgement({})
        if kind.by_clip == "odd one":
            return _judgement([tile.letter for tile in shown], self._oddness(shown))
        if kind.by_clip == "labels":
            return _judgement(
                SECOND, torch.tensor([await self._fit(label, shown) for label in drawn.labels])
            )
        raise UserError(f"--kind {kind.name}: CLIP cannot answer it; name a vision model")

    async def _fit(self, label: str, shown: Sequence[Tile]) -> float:
        """Mean grade of the images by one label."""
        judged = await self._judge.judge(label, "", lambda: shown)
        grades = [grade for grade in judged.scores.values() if grade is not None]
        return sum(grades) / len(grades)

    def _oddness(self, shown: Sequence[Tile]) -> Tensor:
        """(n,) 0 to 100: how far each image points away from the mean of the others."""
        rows = self._encoder.encode((tile.image_id, tile.image) for tile in shown)  # (n, d)
        others = rows.sum(0) - rows
        alike: Tensor = torch.nn.functional.cosine_similarity(rows, others, dim=1)
        return 50 - 50 * alike


def _judgement(letters: Sequence[str], numbers: Tensor) -> Judgement:
    rounded = (round(number, 2) for number in numbers.tolist())
    return Judgement(dict(zip(letters, rounded, strict=False)))
