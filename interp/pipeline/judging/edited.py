"""Labels that people wrote in a run -> edited/scores.jsonl: how well they predict unseen images."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import ModelSettings, Work
from interp.records.types import Score
from interp.run.results import SCORES, Results
from interp.run.run import EDITED, Run
from interp.run.verdicts import edited_explanations, fresh_reviews
from interp.score.run import ScoreSummary, summarise
from sae.core.errors import UserError, quote


class EditedStage(ScoreStage):
    """Tests the labels that people wrote; the run's own labels and scores stay as they are."""

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        latents: Container[int] | None = None,
        work: Work | None = None,
        nulls: str = "",
    ) -> None:
        """`latents`: only these. Raises `UserError` where nobody has written a label."""
        reviews = fresh_reviews(run.path, run.results)
        edited = edited_explanations(reviews, run.results.newest_explanations())
        tests = [e for n, e in edited.items() if latents is None or n in latents]
        if not tests:
            raise UserError(
                f"{run.path} has no label by a person to score; `interp review --run "
                f"{quote(run.path)}` takes them"
            )
        super().__init__(run, settings, tests, work=work, nulls=nulls)

    @property
    def file(self) -> Path:
        return self._run.path / EDITED / SCORES

    @property
    def _results(self) -> Results:
        return self._run.edited

    def summary(self, made: Sequence[Score]) -> ScoreSummary:
        tests = {e.latent: e for e in self._mine(self._explanations)}
        scores = (line.score for line in self._known())
        adaptive = bool(self.sample.steps)
        return summarise(scores, self.by, "", tests, tests, is_adaptive=adaptive)
