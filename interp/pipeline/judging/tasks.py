"""Held-out images, and labels where a task needs them -> tasks.jsonl: a stage for each task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from interp.llm.types import Question, VisionModel
from interp.pictures.cache import EvidenceSource, PictureCache
from interp.pipeline.clip.model import background, judge_clip_name, judge_encoder
from interp.pipeline.paid.dry_run import Unasked
from interp.pipeline.paid.model import JUDGE_SHAPE
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stage import Stage
from interp.records.tasks import SCORING, TaskScore
from interp.records.types import AnsweredBy, Example, Explanation, Score
from interp.run.run import Run
from interp.score.kinds.asking import grid_prompt
from interp.score.kinds.task import Case, TaskKind
from interp.score.sampling import SampleConfig
from interp.score.tasks import (
    TaskJudge,
    TaskSummary,
    VlmTaskJudge,
    pending_tasks,
    run_task,
    summarise_tasks,
    task_questions,
)
from sae.core.errors import UserError


class TaskStage(Stage[int, TaskScore, TaskSummary]):
    """Asks one judging task of each latent; an item is a latent."""

    shape = JUDGE_SHAPE

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        kind: TaskKind,
        tests: Mapping[int, Explanation | None],
        work: Work | None = None,
        sample: SampleConfig | None = None,
    ) -> None:
        """`tests`: the latents with the label that is judged; `sample`: their test images.

        Raises `UserError` for a task that cannot be asked of this run or this judge.
        """
        super().__init__(run, settings, work or Work())
        self.kind = kind
        self._tests = tests
        self._sample = sample or SampleConfig()
        require_askable(run, settings, kind)

    @property
    def name(self) -> str:
        return f"score-{self.kind.name}"

    @property
    def capped(self) -> tuple[str, ...]:
        return SCORING

    @property
    def file(self) -> Path:
        return self._run.tasks

    @cached_property
    def by(self) -> AnsweredBy:
        settings = self._settings
        if not settings.is_local:
            prompt = grid_prompt(self.kind.template, self._layout)
            return AnsweredBy(settings.model, prompt, settings.server)
        from interp.local.models import LocalJudge

        return LocalJudge.identify(judge_clip_name(self._run, settings))

    def questions(self, items: Iterable[int]) -> Iterator[Question]:
        source = PictureCache(self._run.evidence)
        judge = self._paid_answerer(Unasked(self._settings.model))
        for latent in items:
            yield from task_questions(self.kind, self._case(latent), judge, source.image)

    def summary(self, made: Sequence[TaskScore]) -> TaskSummary:
        lines = (line for line in self._run.results.tasks if line.latent in self._tests)
        return summarise_tasks(lines, self.kind.name, self.by)

    def results_on(self, scores: Mapping[int, Score]) -> list[TaskScore]:
        """The last result on each of the labels that these scores are of."""
        own = (line for line in self.results() if line.latent in scores)
        return [line for line in own if line.label == scores[line.latent].label]

    def results(self) -> list[TaskScore]:
        """The last result on each latent."""
        found = (
            line
            for line in self._run.results.tasks
            if line.kind == self.kind.name and line.by == self.by and line.failure is None
        )
        return list({line.latent: line for line in found if line.latent in self._tests}.values())

    def _case(self, latent: int) -> Case:
        evidence = self._run.evidence
        others = self._others if self.kind.by_clip == "labels" else ()
        test = self._tests[latent]
        return Case(evidence.of(latent), test, others, self._sample, heat_of=evidence.heat)

    @cached_property
    def _others(self) -> tuple[Explanation, ...]:
        return tuple(self._run.results.newest_explanations().values())

    def _find_pending(self) -> list[int]:
        return pending_tasks(
            self._run.results.tasks,
            self.kind,
            self._tests,
            self._case,
            self.by,
            retry_failed=self._work.retry_failed,
        )

    def _shown(self, item: int) -> Iterable[Example]:
        drawn = self.kind.draw(self._case(item))
        shown = {e.image_id: e for one in drawn for e in one.examples}
        return [e for image_id, e in shown.items() if image_id not in self.kind.own_pictures]

    def _n_requests(self, item: int) -> int:
        return len(self.kind.draw(self._case(item)))

    def _local_answerer(self) -> TaskJudge:
        from interp.local.models import LocalJudge
        from interp.local.tasks import LocalTaskJudge

        encoder = judge_encoder(self._run, self._settings)
        return LocalTaskJudge(LocalJudge(encoder, background(self._run.evidence)), encoder)

    def _paid_answerer(self, model: VisionModel) -> VlmTaskJudge:
        again, server = self._work.retry_failed, self._settings.server
        return VlmTaskJudge(model, self.kind, self._layout, again=again, server=server)

    def _worker(
        self, answerer: TaskJudge, source: EvidenceSource
    ) -> Callable[[int], Awaitable[TaskScore]]:
        def work(latent: int) -> Awaitable[TaskScore]:
            return run_task(self.kind, self._case(latent), answerer, source.image)

        return work


def require_askable(run: Run, settings: ModelSettings, kind: TaskKind) -> None:
    """Raise `UserError` for a task that cannot be asked of this run or this judge."""
    if not kind.outlined:
        return
    if not run.evidence.info.grid:
        raise UserError(
            f"--kind {kind.name} asks about the place on the image where a latent answers, and "
            f"{run.path} has no patches; collect from a store of them: "
            "`sae embed --layer 10 --tokens patch`"
        )
    if settings.is_local:
        raise UserError(
            f"--kind {kind.name} asks about outlined regions, which CLIP cannot tell; "
            "name a vision model: --model ID (`interp models` lists them)"
        )
