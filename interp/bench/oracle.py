"""The truth -> labels and grades that are right at given rates: a labeler and a judge for free.

What they come to is known beforehand, so that they test the bench and its statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from interp.bench.config import Oracle
from interp.bench.constructed import Constructed
from interp.bench.naming import TWO, WorldTruth, is_made_of_concepts
from interp.pictures.cache import Images
from interp.pipeline.explain import ExplainStage
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import ModelSettings
from interp.records.nulls import NONE
from interp.records.types import Evidence, Explanation
from interp.run.run import Run
from interp.score.judge import Judgement, Pictures
from sae.core.files import sha256_hex

YES, NO = 90.0, 10.0
"""Grades of the judge."""


def draw(oracle: Oracle, *about: str) -> Generator:
    """The chance of one answer, the same whenever it is asked for."""
    digest = sha256_hex("\n".join((oracle.by.model, *about)).encode())
    return np.random.default_rng(int(digest[:16], 16))


class OracleNamer:
    """Names latents by what they were made of."""

    def __init__(self, oracle: Oracle, meanings: Sequence[Constructed], names: Sequence[str]):
        self._oracle, self._meanings, self._names = oracle, meanings, names
        self.name = oracle.by.model

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """No image is looked at."""
        latent = evidence.stats.latent
        meaning, rng = self._meanings[latent], draw(self._oracle, str(latent))
        is_right = rng.random() < (self._oracle.hit if meaning.concepts else 1 - self._oracle.alarm)
        other = self._names[int(rng.integers(len(self._names)))]
        label, second, verdict = other, None, "single"
        if is_made_of_concepts(meaning.kind) and is_right:
            label = meaning.concepts[0]
            if meaning.kind in TWO:
                second, verdict = meaning.concepts[1], "several"
        elif is_right:
            verdict = "unclear"
        failed = Explanation.failed(latent, self._oracle.by, "none", {})
        return replace(
            failed,
            label=label,
            second_label=second,
            verdict=verdict,
            failure=None,
            domain=meaning.domain if is_right else "",
        )


class OracleJudge:
    """Grades images by whether the label is true of them."""

    def __init__(self, oracle: Oracle, truth: WorldTruth) -> None:
        self._oracle, self._truth = oracle, truth
        self.name, self.prompt, _ = oracle.by

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        """Yes or no for every picture."""
        true = self._truth.where(label)
        scores: dict[str, float | None] = {}
        for tile in pictures():
            chance = (
                self._oracle.hit if true[self._truth.row_of[tile.image_id]] else self._oracle.alarm
            )
            says = draw(self._oracle, label, tile.image_id).random() < chance
            scores[tile.letter] = YES if says else NO
        return Judgement(scores)


class OracleExplainStage(ExplainStage):
    """The stage of explaining, with an oracle in the place of CLIP."""

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        latents: Sequence[int],
        namer: OracleNamer,
        oracle: Oracle,
    ) -> None:
        super().__init__(run, settings, latents)
        self.by = oracle.by
        self._namer = namer

    def _local_answerer(self) -> Any:
        return self._namer

    def _local_worker(self, answerer: Any) -> Any:
        return self._worker(answerer, self._source)


class OracleScoreStage(ScoreStage):
    """The stage of scoring, with an oracle in the place of CLIP."""

    def __init__(
        self, run: Run, settings: ModelSettings, oracle: Oracle, truth: WorldTruth
    ) -> None:
        super().__init__(run, settings, nulls=NONE)
        self.by = oracle.by
        self._judge = OracleJudge(oracle, truth)

    def _local_answerer(self) -> Any:
        return self._judge

    def _local_worker(self, answerer: Any) -> Any:
        return self._worker(answerer, self._source)
