"""Labels and held-out images -> scores.jsonl: the stage of scoring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from interp.llm.types import Question, VisionModel
from interp.pictures.cache import EvidenceSource, PictureCache
from interp.pipeline.clip_model import background, clip_name, local_encoder, warn_of_misfit
from interp.pipeline.dry_run import Unasked
from interp.pipeline.paid_model import JUDGE_SHAPE
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stage import Stage
from interp.records.types import AnsweredBy, Example, Explanation, Score
from interp.run.run import Run
from interp.score.judge import Judge
from interp.score.kinds.detect import VlmJudge, judge_prompt
from interp.score.latent import score_latent, score_questions
from interp.score.run import ScoreSummary, n_questions, pending_tests, summarise
from interp.score.sampling import SampleConfig, draw_sample
from sae.core.errors import UserError, quote


class ScoreStage(Stage[Explanation, Score, ScoreSummary]):
    """Tests the newest label of each latent on held-out images; an item is a label to test."""

    shape = JUDGE_SHAPE

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        control: str = "",
        latents: Iterable[int] | None = None,
        work: Work | None = None,
    ) -> None:
        """`latents`: only these. Raises `UserError` when nothing was explained yet."""
        super().__init__(run, settings, work or Work())
        self._control = control
        newest = newest_explanations(run)
        wanted = set(newest if latents is None else latents)
        self._explanations = [e for latent, e in newest.items() if latent in wanted]

    @property
    def name(self) -> str:
        return "score-control" if self._control else "score"

    @property
    def file(self) -> Path:
        return self._run.scores

    @cached_property
    def by(self) -> AnsweredBy:
        if not self._settings.is_local:
            return AnsweredBy(
                self._settings.model, judge_prompt(self._layout), self._settings.server
            )
        from interp.local.models import LocalJudge

        return LocalJudge.identify(clip_name(self._run, self._settings))

    def questions(self, items: Iterable[Explanation]) -> Iterator[Question]:
        source = PictureCache(self._run.evidence)
        judge = self._paid_answerer(Unasked(self._settings.model))
        for test in items:
            evidence = source.of(test.latent)
            yield from score_questions(evidence, test, judge, source.image, control=self._control)

    def summary(self, made: Sequence[Score]) -> ScoreSummary:
        latents = {e.latent for e in self._explanations if e.label is not None}
        scores = (line.score for line in self._run.results.score_lines)
        return summarise(scores, self.by, self._control, latents)

    def _find_pending(self) -> list[Explanation]:
        return pending_tests(
            self._run.results.score_lines,
            self._run.evidence,
            self.by,
            self._explanations,
            self._control,
            retry_failed=self._work.retry_failed,
        )

    def _shown(self, item: Explanation) -> Iterable[Example]:
        sample = draw_sample(self._run.evidence.of(item.latent), SampleConfig())
        return (*sample.positives, *sample.negatives)

    def _n_requests(self, item: Explanation) -> int:
        return n_questions(self._run.evidence.of(item.latent))

    def _local_answerer(self) -> Judge:
        from interp.local.models import LocalJudge

        encoder = local_encoder(self._run, self._settings)
        judge = LocalJudge(encoder, background(self._run.evidence))
        labels = [test.label or "" for test in self.pending]
        warn_of_misfit(self._run, encoder.clip.name, labels, judge.background)
        return judge

    def _paid_answerer(self, model: VisionModel) -> VlmJudge:
        again, server = self._work.retry_failed, self._settings.server
        return VlmJudge(model, self._layout, again=again, server=server)

    def _worker(
        self, answerer: Judge, source: EvidenceSource
    ) -> Callable[[Explanation], Awaitable[Score]]:
        def work(test: Explanation) -> Awaitable[Score]:
            evidence = source.of(test.latent)
            return score_latent(evidence, test, answerer, source.image, control=self._control)

        return work


def newest_explanations(run: Run) -> dict[int, Explanation]:
    """The last explanation of every latent. Raises `UserError` when there is none."""
    newest = run.results.newest_explanations()
    if not newest:
        raise UserError(
            f"{run.path} has no explanations; run `interp explain --run {quote(run.path)}`"
        )
    return newest
