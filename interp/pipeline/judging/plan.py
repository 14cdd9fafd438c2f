"""What `interp score` is told -> the stages that it runs: judging tasks, checks of the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from interp.pipeline.judging.canaries import RepeatedCanaries
from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.judging.tasks import TaskStage
from interp.pipeline.score import ScoreStage, newest_explanations
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stage import Stage
from interp.records.tasks import CANARY, DETECT
from interp.records.types import AnsweredBy, Explanation, Score
from interp.run.latents import choose_latents
from interp.run.run import Run
from interp.score.agreement import agreement_of, warnings_of
from interp.score.kinds import canary, checks, fuzz, intruder, match, simulate
from interp.score.kinds.task import Case, TaskKind, detect_grids
from interp.score.lazy import habits_of
from interp.score.run import ScoreSummary
from sae.core.errors import UserError

KINDS: dict[str, TaskKind | None] = {
    DETECT: None,  # has a stage and a file of its own
    **{kind.name: kind for kind in (simulate.KIND, intruder.KIND, fuzz.KIND, match.KIND)},
}


class CheckedJudge(NamedTuple):
    """How far the judge of `detect` can be trusted."""

    judge: str
    explainers: set[str]
    agreement: dict[str, dict[str, float]]
    """By check, as `agreement_of` gives it; of the canaries as `canaries_of`."""
    habits: dict[str, float]
    warnings: list[str]


class Judging:
    """The stages of one `interp score`, in the order in which they run."""

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        judging: JudgingSettings,
        control: str = "",
        work: Work | None = None,
        nulls: str = "",
    ) -> None:
        """Raises `UserError` for a task that cannot be asked, before anything is paid."""
        self._run, self._settings, self._judging = run, settings, judging
        self._work = work or Work()
        self._latents = (
            choose_latents(run.evidence, self._work.latents) if self._work.latents else None
        )
        kinds = judging.kinds
        if control and kinds != (DETECT,):
            raise UserError(f"--control {control} is of --kind detect alone")
        self.detect: ScoreStage | None = None
        if DETECT in kinds:
            own = (None, control, self._work, nulls, judging.foil_share)
            self.detect = ScoreStage(run, settings, [*self._in_all.values()], *own)
        self.tasks = [self._task(kind) for name in kinds if (kind := KINDS[name]) is not None]
        self.canaries: RepeatedCanaries | None = None
        self.checks = self._checks() if self.detect is not None and not control else []

    @property
    def stages(self) -> list[Stage[Any, Any, Any]]:
        """All of them."""
        early = self.canaries.stages if self.canaries else []
        return [*([self.detect] if self.detect else []), *early, *self.checks, *self.tasks]

    def score(self) -> ScoreSummary:
        """Run `detect`, with the canaries that go with it."""
        assert self.detect is not None
        return self.canaries.score() if self.canaries else self.detect.run()

    def check(self) -> CheckedJudge:
        """What the answers so far say of the judge of `detect`; a local one does not tire."""
        assert self.detect is not None
        results, by = self._run.results, self.detect.by
        lines = {
            line.score.latent: line
            for line in results.score_lines
            if not line.score.control and _by(line.score) == by
        }
        scores = {
            latent: results.with_verdicts(line)
            for latent, line in lines.items()
            if line.score.failure is None and line.score.label == results.label(latent)
        }
        agreement = {
            stage.kind.name: figures
            for stage in self.checks
            if (figures := self._figures(stage, scores))
        }
        habits = None if self._settings.is_local else habits_of(scores.values())
        warnings = [*(habits.warnings() if habits else []), *warnings_of(agreement)]
        explainers = {score.explainer for score in scores.values()}
        flat = {f"habits/{k}": v for k, v in dataclasses.asdict(habits).items()} if habits else {}
        return CheckedJudge(by.model, explainers, agreement, flat, warnings)

    def _figures(self, stage: TaskStage, scores: Mapping[int, Score]) -> dict[str, float]:
        if stage.kind.name != CANARY:
            return agreement_of(scores, stage.results_on(scores), stage.kind.name)
        found, early = canary.canaries_of(stage.results()), self.canaries
        if early is None:
            return found
        moments = (early.start.results(), early.half.results(), stage.results())
        return found | canary.drift_of(*moments)

    def _task(self, kind: TaskKind) -> TaskStage:
        tests: dict[int, Explanation | None]
        if kind.needs_label:
            tests = dict(self._labelled)
        else:
            latents = choose_latents(self._run.evidence, None)
            asked = latents if self._latents is None else self._latents
            tests = dict.fromkeys(filter(self._work.has, asked))
        return TaskStage(self._run, self._settings, kind, tests, self._work)

    def _checks(self) -> list[TaskStage]:
        """Only of labels that are scored, or will be: `--limit` counts for these."""
        assert self.detect is not None
        own, judging = self._settings, self._judging
        later = {test.latent for test in self.detect.all_pending[len(self.detect.pending) :]}
        tests = {latent: e for latent, e in self._labelled.items() if latent not in later}
        asked: list[tuple[ModelSettings, TaskKind]] = []
        work = dataclasses.replace(self._work, limit=None)
        bare, sample = dict.fromkeys(tests), self.detect.sample
        if not own.is_local:
            kind = canary.canary(judging.canary_share, self._sure_canary())
            asked = [
                (own, checks.retest(judging.retest_share)),
                (own, checks.alone(judging.alone_share)),
                (own, kind),
            ]
            if judging.canary_share:
                labelled = [*self._labelled]
                early = RepeatedCanaries(self._run, own, kind, self.detect, labelled, work)
                self.canaries = early if early.are_asked else None
            if self.canaries and later:  # their last time is at the very end
                bare = {n: None for n in bare if n not in self.canaries.latents}
        if judging.second_judge:
            asked.append((judging.second_for(own), checks.second(judging.second_share)))
        return [
            TaskStage(self._run, settings, kind, tests if kind.needs_label else bare, work, sample)
            for settings, kind in asked
        ]

    def _sure_canary(self) -> int | None:
        """The latent that has a canary whatever the share, in a run of enough latents; a part of a
        run has one of its own, among which is that of the whole."""
        labelled = self._in_all
        whole = choose_latents(self._run.evidence, None) if self._work.part else labelled
        if not self._judging.canary_share or len(whole) < canary.LEAST_LATENTS:
            return None
        in_turn = canary.first_in_turn(labelled)
        return next(
            (n for n in in_turn if detect_grids(Case(self._run.evidence.of(n), None))), None
        )

    @cached_property
    def _labelled(self) -> dict[int, Explanation]:
        """The labels that are tested: those of the part that is worked on."""
        return {n: e for n, e in self._in_all.items() if self._work.has(n)}

    @cached_property
    def _in_all(self) -> dict[int, Explanation]:
        """The same of all parts."""
        newest = newest_explanations(self._run)
        wanted = set(newest if self._latents is None else self._latents)
        return {n: e for n, e in newest.items() if n in wanted and e.label is not None}


def _by(score: Score) -> AnsweredBy:
    return AnsweredBy(score.model, score.prompt, score.server)
