"""Evidence with a side select -> explanations.jsonl: of several labels of a latent the best stands.

All labels and their scores on the side select are in a journal of their own, `candidates/`: what is
there is not asked again, and no reader of the run takes it for what the run says.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interp.explain.run import ExplainSummary, pending_latents, summarise
from interp.llm.cost.estimate import Estimate, add_up
from interp.llm.repair import file_under
from interp.llm.types import Question, VisionModel
from interp.pipeline.best_of.choose import (
    LEAD,
    Choices,
    candidates_of,
    choose,
    count_choices,
    labels_to_compare,
)
from interp.pipeline.best_of.settings import BestOfSettings
from interp.pipeline.explain import ExplainStage
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stage import Stage, write_first_requests
from interp.pipeline.transfer import STAND_IN, make_stand_in
from interp.records.codec import to_json
from interp.records.nulls import NONE
from interp.records.types import AnsweredBy, Explanation, Score
from interp.run.results import EXPLANATIONS, SCORES, Results
from interp.run.run import CANDIDATES, Run
from interp.score.kinds.detect import VlmJudge
from interp.score.run import ScoreSummary, digest_sample
from interp.score.sampling import SampleConfig
from sae.core.errors import UserError, quote
from sae.core.files import append_jsonl, repair_jsonl, sha256_hex

if TYPE_CHECKING:
    from interp.local.models import LocalNamer

EXPLAIN, SELECT = "explain", "select"
"""What the questions are filed under; one `--max-cost` holds for both."""
SELECT_SAMPLE = SampleConfig(n_positive=8, n_negative=8, side="select")
"""The images that labels are compared on."""
FREE_SAMPLE = SampleConfig(n_positive=32, n_negative=32, side="select")
"""The same of a judge that costs nothing: more tell better."""


class Made(NamedTuple):
    """What `BestOf.run` came to."""

    explained: ExplainSummary
    """Of the labels that stand."""
    choices: Choices
    graded: ScoreSummary
    """Of all labels, on the side select."""


class BestOf:
    """Several labels of each latent, scored on images that neither explain nor test."""

    def __init__(
        self,
        run: Run,
        best_of: BestOfSettings,
        settings: ModelSettings,
        latents: Sequence[int],
        work: Work | None = None,
    ) -> None:
        """Raises `UserError` where the evidence has no side select."""
        require_select(run)
        self._run, self._settings, self._best_of = run, settings, best_of
        self._judge = best_of.judge_for(settings)
        if not (self._judge.clip or run.info.clip):  # embeddings of others that do not name theirs
            self._judge = dataclasses.replace(self._judge, clip=settings.clip)
        self._latents, self._work = tuple(dict.fromkeys(latents)), work or Work()
        self._n = best_of.best_of

    @cached_property
    def by(self) -> AnsweredBy:
        """Who explains; the prompt names the judge and the number of labels too."""
        first, grader = self._explainers(())[0].by, self._grader((), stand_ins=False)
        asked = dataclasses.asdict(grader.sample)
        settings = [first.prompt, self._n, *grader.by, asked, self._lead]
        return first._replace(prompt=sha256_hex(json.dumps(settings).encode()))

    @property
    def _lead(self) -> float:
        """A vision model's answers are alike, the local namer's are ranked."""
        return LEAD if self._settings.is_local else 0.0

    @cached_property
    def all_pending(self) -> list[int]:
        """Latents without a choice among so many labels by this explainer and this judge."""
        known = [e for e in self._run.results.explanations if self._is_right(e)]
        again = self._work.retry_failed
        return pending_latents(known, self.by, self._latents, retry_failed=again)

    @property
    def pending(self) -> list[int]:
        """The same, at most `--limit` of it."""
        return self.all_pending[: self._work.limit]

    def run(self, label: str = "") -> Made:
        """Ask, score and choose, going on where an earlier call stopped; nothing is asked twice.

        `label` stands before the progress. Raises what `Stage.run` does.
        """
        chosen = self.pending
        (self._run.path / CANDIDATES).mkdir(exist_ok=True)
        stages = self._explainers(chosen)
        named = label or EXPLAIN
        for number, stage in enumerate(stages):
            stage.run(f"{named}, {number + 1} of {self._n}" if len(stages) > 1 else named)
        grader = self._grader(chosen, stand_ins=False)
        graded = grader.run(f"{label}, {SELECT}" if label else SELECT)
        made = self._choose(chosen, grader) if chosen else []
        newest = self._run.results.newest_explanations()
        mine = [newest[n] for n in self._latents if n in newest and newest[n].prompt == self.by[1]]
        n_skipped = len(self._latents) - len(self.all_pending)
        known = self._run.results.explanations
        summary = summarise(known, self.by, self._latents, made, n_skipped)
        return Made(summary, count_choices(mine), graded)

    def estimates(self) -> list[Estimate]:
        """Of explaining, of scoring; labels that are not there yet are taken to be different ones.

        Raises `UserError` where neither is paid.
        """
        explainers: list[Stage[Any, Any, Any]] = [*self._explainers(self.pending)]
        grader: Stage[Any, Any, Any] = self._grader(self.pending, stand_ins=True)
        paid = [stages for stages in (explainers, [grader]) if not stages[0].is_local]
        return [add_up([stage.estimate() for stage in stages]) for stages in paid or [explainers]]

    def write_requests(self, n: int) -> list[Path]:
        """Write the first `n` requests of `run` as files; labels to come are stood in for."""
        explainers: list[Stage[Any, Any, Any]] = [*self._explainers(self.pending)]
        every = [*explainers, self._grader(self.pending, stand_ins=True)]
        paid = [stage for stage in every if not stage.is_local] or every[:1]
        return write_first_requests(self._run, paid, n)

    def refusals(self) -> list[str]:
        """As of a `Stage`."""
        return self._explainers(())[0].refusals()

    def _explainers(self, latents: Sequence[int]) -> list[ExplainCandidates]:
        """A stage for each draw of images; the local namer ranks all names at once."""
        n_draws = 1 if self._settings.is_local else self._n
        work = dataclasses.replace(self._work, limit=None)
        return [
            ExplainCandidates(self._run, self._settings, latents, draw, self._n, work)
            for draw in range(n_draws)
        ]

    def _grader(self, latents: Sequence[int], stand_ins: bool) -> ScoreCandidates:
        tests: list[Explanation] = []
        known = self._answers() if latents else {}
        for latent in latents:
            answers = known.get(latent, [])
            if stand_ins and not self._is_complete(answers):
                labels = [f"{STAND_IN} {1 + number}" for number in range(len(answers), self._n)]
                model = self._settings.model
                answers = [*answers, *(make_stand_in(latent, model, label) for label in labels)]
            tests += labels_to_compare(answers)
        work = dataclasses.replace(self._work, limit=None)
        return ScoreCandidates(self._run, self._judge, tests, work)

    def _answers(self) -> dict[int, list[Explanation]]:
        """The answers so far of each latent, in the order of their draws."""
        known = filter(self._is_right, self._run.candidates.explanations)
        last = {(e.latent, AnsweredBy(e.model, e.prompt, e.server)): e for e in known}
        found: dict[int, list[Explanation]] = {}
        for stage in self._explainers(()):
            for (latent, by), answer in last.items():
                if by == stage.by:
                    found.setdefault(latent, []).append(answer)
        if self._settings.is_local:
            return {latent: candidates_of(one[0], self._n) for latent, one in found.items()}
        return found

    def _is_complete(self, answers: Sequence[Explanation]) -> bool:
        return len(answers) >= (1 if self._settings.is_local else self._n)

    def _is_right(self, explanation: Explanation) -> bool:
        rightly = self._run.evidence.were_shown_rightly
        return rightly(explanation.codes.values(), explanation.chosen_on)

    def _choose(self, latents: Sequence[int], grader: ScoreCandidates) -> list[Explanation]:
        """Choose, and append what stands to explanations.jsonl."""
        made = []
        with closing(self._run.hold()):
            repair_jsonl(self._run.explanations)
            self._run.results.forget_outdated()
            known = [e for e in self._run.results.explanations if self._is_right(e)]
            settings = {**self._settings.recorded(), **self._best_of.recorded()}
            self._run.remember(EXPLAIN, settings)
            answers, grades = self._answers(), grader.found()
            again = self._work.retry_failed
            for latent in pending_latents(known, self.by, latents, retry_failed=again):
                said, scored = answers.get(latent, []), grades.get(latent, {})
                if not said or not {e.label for e in labels_to_compare(said)} <= set(scored):
                    continue  # another process asks about it at the same time
                record = choose(said, scored, self.by, self._lead)
                append_jsonl(self._run.explanations, [to_json(record)])
                self._run.results.add(record)
                made.append(record)
        return made


class ExplainCandidates(ExplainStage):
    """Names latents from one draw of their images, into the journal of candidates."""

    capped = (EXPLAIN, SELECT)

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        latents: Sequence[int],
        draw: int,
        n: int,
        work: Work,
    ) -> None:
        """`draw` as in `ShowConfig`; `n`: names that the local namer is to give."""
        super().__init__(run, settings, latents, work)
        show = dataclasses.replace(self._config.show, draw=draw)
        self._config = dataclasses.replace(self._config, show=show)
        self._n = n

    @property
    def file(self) -> Path:
        return self._run.path / CANDIDATES / EXPLANATIONS

    @property
    def _results(self) -> Results:
        return self._run.candidates

    @property
    def _clip_namer(self) -> type[LocalNamer]:
        from interp.local.models import LocalNamer

        class OfSoManyNames(LocalNamer):
            n_candidates = max(self._n, LocalNamer.n_candidates)

        return OfSoManyNames


class ScoreCandidates(ScoreStage):
    """Scores labels on the side select, into the journal of candidates."""

    name = SELECT
    unit = "labels"
    capped = (EXPLAIN, SELECT)

    def __init__(
        self, run: Run, settings: ModelSettings, tests: Sequence[Explanation], work: Work
    ) -> None:
        sample = FREE_SAMPLE if settings.is_local else SELECT_SAMPLE
        super().__init__(run, settings, tests, sample, work=work, nulls=NONE)

    @property
    def file(self) -> Path:
        return self._run.path / CANDIDATES / SCORES

    @property
    def _results(self) -> Results:
        return self._run.candidates

    def found(self) -> dict[int, dict[str, Score]]:
        """Of each latent, by label: the score on the images that are its now, with verdicts."""
        found: dict[int, dict[str, Score]] = {}
        latents = {test.latent for test in self._explanations}
        images = {n: digest_sample(self._source.of(n), self.sample) for n in sorted(latents)}
        for line in self._results.score_lines:
            score = line.score
            by = AnsweredBy(score.model, score.prompt, score.server)
            if by == self.by and line.images == images.get(score.latent):
                found.setdefault(score.latent, {})[score.label] = self._results.with_verdicts(line)
        return found

    def questions(self, items: Iterable[Explanation]) -> Iterator[Question]:
        return (file_under(question, SELECT) for question in super().questions(items))

    def _paid_answerer(self, model: VisionModel) -> VlmJudge:
        answerer = super()._paid_answerer(model)
        answerer.filed = SELECT
        return answerer


def require_select(run: Run) -> None:
    """Raise `UserError` where the evidence keeps no images to choose labels on."""
    if run.evidence.info.select:
        return
    again = f"interp collect SAE STORE --run {quote(run.path)} --select --overwrite"
    raise UserError(
        f"{run.path} keeps no images to choose labels on; collect again with a side for them: "
        f"`{again}`"
    )
