"""Labels and held-out images -> scores.jsonl: the stage of scoring."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.llm.cost.estimate import Estimate, further, with_nulls
from interp.llm.types import Question, VisionModel
from interp.pictures.cache import EvidenceSource, PictureCache
from interp.pipeline.clip.model import background, judge_clip_name, judge_encoder, warn_of_misfit
from interp.pipeline.paid.dry_run import Unasked
from interp.pipeline.paid.model import JUDGE_SHAPE
from interp.pipeline.settings import JudgeSettings, ModelSettings, Work
from interp.pipeline.stage import Stage
from interp.records.nulls import BESIDE, FOIL_SHARE, FOILS, FREE, NONE
from interp.records.score_line import ScoreLine
from interp.records.tasks import SCORING
from interp.records.types import AnsweredBy, Evidence, Example, Explanation, Score
from interp.run.run import Run
from interp.score.judge import Judge
from interp.score.kinds.asking import foils_prompt
from interp.score.kinds.detect import VlmJudge, judge_prompt
from interp.score.latent import score_latent, score_questions
from interp.score.nulls.foils import FoilJudge, Foils
from interp.score.nulls.suite import FreeNulls
from interp.score.run import ScoreSummary, n_questions, pending_tests, summarise
from interp.score.sampling import ADAPTIVE, ALL_KEPT, SampleConfig, draw_sample
from sae.core.errors import Notice, UserError, quote

if TYPE_CHECKING:
    from interp.local.models import LocalJudge


class ScoreStage(Stage[Explanation, Score, ScoreSummary]):
    """Tests the newest label of each latent on held-out images; an item is a label to test."""

    shape = JUDGE_SHAPE

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        tests: Sequence[Explanation] | None = None,
        sample: SampleConfig | None = None,
        control: str = "",
        work: Work | None = None,
        nulls: str = "",
        foil_share: float = FOIL_SHARE,
    ) -> None:
        """`tests`: the labels, by default the newest of every latent; `sample`: the images that
        test them, by default as `sample_of` says; `nulls`: how they are graded, by default as
        `how_nulls` says; `foil_share`: of the latents that have foils.

        Raises `UserError` when nothing was explained yet.
        """
        super().__init__(run, settings, work or Work())
        self.sample = sample or sample_of(settings)
        self._control = control
        self._nulls = how_nulls(nulls, settings.is_local)
        self._foil_share = foil_share
        self._explanations = [*newest_explanations(run).values()] if tests is None else [*tests]

    @property
    def name(self) -> str:
        return "score-control" if self._control else "score"

    @property
    def capped(self) -> tuple[str, ...]:
        return (self.name, self.name + BESIDE) if self._control else SCORING

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

        return LocalJudge.identify(judge_clip_name(self._run, self._settings))

    def questions(self, items: Iterable[Explanation]) -> Iterator[Question]:
        return self._questions(items, foils=True)

    def _questions(self, items: Iterable[Explanation], *, foils: bool) -> Iterator[Question]:
        source = PictureCache(self._source)
        judge = self._paid_answerer(Unasked(self._settings.model))
        for test in items:
            evidence = source.of(test.latent)
            beside = self._foil_judge(judge, test, evidence) if foils else None
            asked = (evidence, test, beside or judge, source.image, self.sample, self._control)
            yield from score_questions(*asked)

    def estimate(self, items: Sequence[Explanation] | None = None) -> Estimate:
        askable = self._askable() if items is None else items
        return with_nulls(super().estimate(askable), self.estimate_nulls(askable))

    def _asked(self, items: Sequence[Explanation]) -> Iterator[Question]:
        return self._questions(items, foils=False)

    def estimate_nulls(self, items: Sequence[Explanation] | None = None) -> Estimate | None:
        """What of `estimate` is for foils; None where there are none."""
        askable = self._askable() if items is None else items
        chosen = [test for test in askable if self._foils and self._foils.has(test.latent)]
        if not chosen:
            return None
        alone = super().estimate(chosen)
        beside = self._estimate(self.name + BESIDE, chosen, self.questions)
        return further(alone, beside)

    def summary(self, made: Sequence[Score]) -> ScoreSummary:
        latents = {e.latent for e in self._mine(self._explanations) if e.label is not None}
        scores = (line.score for line in self._known())
        explanations = self._results.newest_explanations()
        is_adaptive = bool(self.sample.steps)
        return summarise(
            scores, self.by, self._control, latents, explanations, is_adaptive=is_adaptive
        )

    def _find_pending(self) -> list[Explanation]:
        # The labels of a control are dealt among those of all parts.
        tests = self._explanations if self._control else self._mine(self._explanations)
        pending = pending_tests(
            self._known(),
            self._source,
            self.by,
            tests,
            self._control,
            self.sample,
            retry_failed=self._work.retry_failed,
            lacks_nulls=self._lacks_nulls,
        )
        return self._mine(pending)

    def _mine(self, tests: Iterable[Explanation]) -> list[Explanation]:
        """Those of the part that is worked on."""
        return [test for test in tests if self._work.has(test.latent)]

    def _lacks_nulls(self, score: Score) -> bool:
        if self._nulls == FREE:
            return score.nulls is None
        if self._foils is None or not self._foils.has(score.latent):
            return False
        return score.nulls is None or score.nulls.prompt != foils_prompt(self._layout)

    def _known(self) -> Iterable[ScoreLine]:
        """What was measured before of what this stage is about."""
        return self._results.score_lines

    def _shown(self, item: Explanation) -> Iterable[Example]:
        sample = draw_sample(self._source.of(item.latent), self.sample)
        return (*sample.positives, *sample.negatives)

    def _n_requests(self, item: Explanation) -> int:
        return n_questions(self._source.of(item.latent), self.sample)

    def _n_least(self, item: Explanation) -> int:
        return n_questions(self._source.of(item.latent), self.sample, at_least=True)

    def local_judge(self) -> LocalJudge:
        """CLIP as the judge. Raises `UserError` where there is nothing to compare with."""
        from interp.local.models import LocalJudge

        encoder = judge_encoder(self._run, self._settings)
        return LocalJudge(encoder, background(self._run.evidence, self.domain, encoder))

    def _local_answerer(self) -> Judge:
        judge = self.local_judge()
        labels = [test.label or "" for test in self.pending]
        warn_of_misfit(self._run, judge.encoder.clip.name, labels, judge.background)
        return judge

    def _paid_answerer(self, model: VisionModel) -> VlmJudge:
        again, server = self._work.retry_failed, self._settings.server
        return VlmJudge(model, self._layout, again=again, server=server)

    def _worker(
        self, answerer: Judge, source: EvidenceSource
    ) -> Callable[[Explanation], Awaitable[Score]]:
        free = self.free_nulls(answerer) if self._nulls == FREE else None

        def work(test: Explanation) -> Awaitable[Score]:
            evidence, control = source.of(test.latent), self._control
            beside = self._foil_judge(answerer, test, evidence)
            asked = (evidence, test, beside or answerer, source.image, self.sample)
            return score_latent(*asked, control=control, nulls=beside or free)

        return work

    @cached_property
    def _foils(self) -> Foils | None:
        """None where nulls are graded otherwise, or not at all."""
        if self._nulls != FOILS or not self._foil_share:
            return None
        newest = self._run.results.newest_explanations()
        labels = {latent: e.label for latent, e in newest.items() if e.label is not None}
        n_tested = sum(test.label is not None for test in self._explanations)
        return Foils(labels, self._foil_share, n_tested)

    def _foil_judge(self, judge: Judge, test: Explanation, evidence: Evidence) -> FoilJudge | None:
        if self._foils is None or not self._foils.has(test.latent):
            return None
        assert isinstance(judge, VlmJudge)
        return FoilJudge(judge, self._foils.draw(evidence, test.label or ""))

    def free_nulls(self, judge: Any) -> FreeNulls:
        """Of all labels of the run, whichever are scored now."""
        from interp.local.vocabulary import load_vocabulary

        clip = judge_clip_name(self._run, self._settings)
        words = [term.name for name in ("auto", "general") for term in load_vocabulary(name, clip)]
        newest = self._run.results.newest_explanations().values()
        return FreeNulls(judge, [e.label for e in newest if e.label], words)


def how_nulls(asked: str, is_local: bool) -> str:
    """What `--nulls` comes to: a judge that is free grades all, a paid one foils, unless none are
    wanted.

    Raises `UserError` for a word that is not known, or not of this judge.
    """
    known = (FOILS, NONE)
    if asked and asked not in known:
        raise UserError(f"--nulls {asked!r} is not known; one of {', '.join(known)}")
    if asked == FOILS and is_local:
        raise UserError(
            "--nulls foils is for a judge that is paid; --model local grades thousands of labels "
            "that say nothing without it"
        )
    return asked or (FREE if is_local else FOILS)


def sample_of(settings: ModelSettings) -> SampleConfig:
    """The images that test a label: more for a judge that costs nothing, look by look where
    `--adaptive` was given (there is none but for scoring)."""
    if isinstance(settings, JudgeSettings) and settings.adaptive:
        return ADAPTIVE
    return ALL_KEPT if settings.is_local else SampleConfig()


def newest_explanations(run: Run) -> dict[int, Explanation]:
    """The last explanation of every latent, without those made from images that now test labels,
    which a `Notice` counts. Raises `UserError` when there is none."""
    found = run.results.newest_explanations()
    rightly = run.evidence.were_shown_rightly
    newest = {latent: e for latent, e in found.items() if rightly(e.codes.values(), e.chosen_on)}
    if len(newest) < len(found):
        told = f"{len(found) - len(newest):,} of {len(found):,} labels were made from images that"
        remedy = f"`interp explain --run {quote(run.path)}` makes them anew"
        warnings.warn(f"{told} may test a label since `interp collect`; {remedy}", Notice, 2)
    if not newest:
        raise UserError(
            f"{run.path} has no explanations; run `interp explain --run {quote(run.path)}`"
        )
    return newest
