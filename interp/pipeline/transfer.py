"""Evidence by domain -> transfer/*.jsonl and transfer.csv: labels of one domain tested on another.

Each latent is explained on images of either domain, and both labels are scored on held-out images
of either: six stages of asking, with a journal of their own beside the run's labels and scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from interp.explain.explainer import Explainer, VlmExplainer
from interp.explain.run import ExplainSummary
from interp.llm.cost.estimate import Estimate, add_up
from interp.llm.repair import file_under
from interp.llm.types import Question, VisionModel
from interp.pictures.cache import EvidenceSource
from interp.pipeline.explain import ExplainStage
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stage import Stage, write_first_requests
from interp.records.nulls import NONE
from interp.records.score_line import ScoreLine
from interp.records.transfer import Transfer
from interp.records.types import AnsweredBy, Explanation, Score
from interp.run.results import EXPLANATIONS, SCORES, Results
from interp.run.run import TRANSFER, Run
from interp.run.transfer_file import write_transfer
from interp.score.judge import Judge
from interp.score.kinds.detect import VlmJudge
from interp.score.run import ScoreSummary
from interp.score.transfer import (
    CELL_SAMPLE,
    Domains,
    TransferSummary,
    bound_by_rate,
    classify,
    summarise,
)
from sae.core.errors import UserError

EXPLAIN, SCORE = "transfer-explain", "transfer-score"
"""What the questions are filed under; one `--max-cost` holds for both."""
STAND_IN = "what most of its images show"
"""In an estimate: the label of a latent that is not explained yet."""


class Made(NamedTuple):
    """What `TransferStage.run` came to."""

    transfer: TransferSummary
    explained: tuple[ExplainSummary, ExplainSummary]
    """On images of each domain."""
    scored: tuple[ScoreSummary, ...]
    """One for each cell."""
    path: Path
    """transfer.csv"""


class TransferStage:
    """The 2x2 of a run's latents between two domains."""

    def __init__(
        self,
        run: Run,
        explainer: ModelSettings,
        judge: ModelSettings,
        domains: Domains,
        latents: Sequence[int],
        work: Work | None = None,
    ) -> None:
        """`latents` that are bound to a domain by their rates are not asked about."""
        self._run, self._explainer, self._judge = run, explainer, judge
        self._domains, self._work = domains, work or Work()
        self._latents = tuple(latents)

    def run(self, label: str = "") -> Made:
        """Explain and score what is pending, and write transfer.csv of all that was looked at."""
        # All stages go over the latents that are chosen now.
        (self._run.path / TRANSFER).mkdir(exist_ok=True)
        chosen = self.pending
        before = f"{label} " if label else ""
        asked = [self._explain(on, chosen) for on in self._pair]
        explained = [s.run(f"{before}explained on {s.domain}") for s in asked]
        scored = [
            self._score(on, at, chosen).run(f"{before}{on} to {at}") for on, at in self._cells
        ]
        found = self.found()
        return Made(
            summarise(found, *self._pair),
            (explained[0], explained[1]),
            tuple(scored),
            write_transfer(self._run.path, found),
        )

    @cached_property
    def all_pending(self) -> list[int]:
        """Latents that something was still to be asked about when this was first asked for."""
        todo = {item for on in self._pair for item in self._explain(on, self._open).all_pending}
        for on, at in self._cells:
            todo |= {test.latent for test in self._score(on, at, self._open).all_pending}
        return sorted(todo)

    @property
    def pending(self) -> list[int]:
        """The same, at most `--limit` of it."""
        return self.all_pending[: self._work.limit]

    def found(self) -> list[Transfer]:
        """The 2x2 of every latent that was asked about, or that its rates bind to a domain."""
        labels = self._labels()
        scores: dict[int, dict[tuple[str, str], ScoreLine]] = {}
        for line in self._results.score_lines:
            score = line.score
            now = labels.get((score.latent, score.explained_on))
            if now is not None and now.label == score.label:
                cells = scores.setdefault(score.latent, {})
                cells[score.explained_on, score.scored_on] = line
        made = []
        asked = {latent for latent, _ in labels}
        for latent in sorted({*self._run.evidence.live(), *self._latents, *asked}):
            named = {on: labels[latent, on].label for on in self._pair if (latent, on) in labels}
            lines = scores.get(latent, {})
            tested = {cell: self._results.with_verdicts(line) for cell, line in lines.items()}
            stats = self._run.evidence.stats(latent)
            made.append(classify(stats, self._domains, named, tested))
        return [one for one in made if one.why != "not asked"]

    def estimates(self) -> list[Estimate]:
        """Of explaining, of scoring; labels that are not there yet are taken to be alike."""
        chosen = self.pending
        explain: list[Stage[Any, Any, Any]] = [self._explain(on, chosen) for on in self._pair]
        score: list[Stage[Any, Any, Any]] = [
            self._score(on, at, chosen, stand_in=True) for on, at in self._cells
        ]
        return [
            add_up([stage.estimate() for stage in stages if not stage.is_local])
            for stages in (explain, score)
            if not stages[0].is_local
        ]

    def write_requests(self, n: int) -> list[Path]:
        """Write the first `n` requests of `run` as files; labels to come are stood in for."""
        stages: list[Stage[Any, Any, Any]] = [self._explain(on, self.pending) for on in self._pair]
        stages += [self._score(on, at, self.pending, stand_in=True) for on, at in self._cells]
        return write_first_requests(self._run, [s for s in stages if not s.is_local], n)

    @property
    def _pair(self) -> tuple[str, str]:
        return self._domains.a, self._domains.b

    @property
    def _cells(self) -> list[tuple[str, str]]:
        return [(on, at) for on in self._pair for at in self._pair]

    @property
    def _results(self) -> Results:
        return self._run.transfer

    @cached_property
    def _open(self) -> list[int]:
        """The chosen latents that their rates do not bind to a domain."""
        stats = map(self._run.evidence.stats, self._latents)
        return [one.latent for one in stats if not bound_by_rate(one, self._domains)]

    def _labels(self) -> dict[tuple[int, str], Explanation]:
        """The newest label of each latent and domain."""
        return {(e.latent, e.explained_on): e for e in self._results.explanations}

    def _explain(self, on: str, latents: Sequence[int]) -> ExplainInDomain:
        work = dataclasses.replace(self._work, limit=None)
        return ExplainInDomain(self._run, self._explainer, on, latents, work)

    def _score(
        self, on: str, at: str, latents: Sequence[int], stand_in: bool = False
    ) -> ScoreInDomain:
        known = self._labels()
        tests = [known[latent, on] for latent in latents if (latent, on) in known]
        if stand_in:
            coming = self._explain(on, latents).all_pending
            tests = [e for e in tests if e.latent not in coming]
            tests += [make_stand_in(latent, self._explainer.model) for latent in coming]
        work = dataclasses.replace(self._work, limit=None)
        return ScoreInDomain(self._run, self._judge, (on, at), tests, work)


class ExplainInDomain(ExplainStage):
    """Names latents by images of one domain."""

    name = EXPLAIN
    capped = (EXPLAIN, SCORE)

    def __init__(
        self, run: Run, settings: ModelSettings, domain: str, latents: Sequence[int], work: Work
    ) -> None:
        super().__init__(run, settings, latents, work)
        self.domain = domain

    @property
    def file(self) -> Path:
        return self._run.path / TRANSFER / EXPLANATIONS

    @property
    def _results(self) -> Results:
        return self._run.transfer

    def _known(self) -> Iterable[Explanation]:
        return [e for e in self._results.explanations if e.explained_on == self.domain]

    def _paid_answerer(self, model: VisionModel) -> VlmExplainer:
        answerer = super()._paid_answerer(model)
        answerer.filed = EXPLAIN
        return answerer

    def questions(self, items: Iterable[int]) -> Iterator[Question]:
        return (file_under(question, EXPLAIN) for question in super().questions(items))

    def _worker(
        self, answerer: Explainer, source: EvidenceSource
    ) -> Callable[[int], Awaitable[Explanation]]:
        explain = super()._worker(answerer, source)

        async def work(latent: int) -> Explanation:
            return dataclasses.replace(await explain(latent), explained_on=self.domain)

        return work


class ScoreInDomain(ScoreStage):
    """Tests labels that were found in one domain on images of another, or the same."""

    name = SCORE
    capped = (EXPLAIN, SCORE)

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        cell: tuple[str, str],
        tests: Sequence[Explanation],
        work: Work,
    ) -> None:
        """`cell`: the domain of the labels, that of the images."""
        # No nulls: what it is held against is its 2x2.
        super().__init__(run, settings, tests, CELL_SAMPLE, work=work, nulls=NONE)
        self._on, self.domain = cell

    @property
    def file(self) -> Path:
        return self._run.path / TRANSFER / SCORES

    @property
    def _results(self) -> Results:
        return self._run.transfer

    def _known(self) -> Iterable[ScoreLine]:
        cell = (self._on, self.domain)
        lines = self._results.score_lines
        return [e for e in lines if (e.score.explained_on, e.score.scored_on) == cell]

    def _paid_answerer(self, model: VisionModel) -> VlmJudge:
        answerer = super()._paid_answerer(model)
        answerer.filed = SCORE
        return answerer

    def questions(self, items: Iterable[Explanation]) -> Iterator[Question]:
        return (file_under(question, SCORE) for question in super().questions(items))

    def _worker(
        self, answerer: Judge, source: EvidenceSource
    ) -> Callable[[Explanation], Awaitable[Score]]:
        score = super()._worker(answerer, source)

        async def work(test: Explanation) -> Score:
            made = await score(test)
            return dataclasses.replace(made, explained_on=self._on, scored_on=self.domain)

        return work


def choose_domains(run: Run, spec: str) -> Domains:
    """The two of `spec` ("a,b"), or the run's only two.

    Raises `UserError` where the run has not two, or not those.
    """
    reader = run.evidence
    known = reader.info.domains
    named = [name.strip() for name in spec.split(",") if name.strip()] or list(known)
    if len(known) < 2:
        raise UserError(
            f"{run.path} has images of one domain alone, {known[0]}; embed two: "
            "`sae embed --domain sketch=DIR photo=DIR`, and collect again"
        )
    if len(named) != 2 or named[0] == named[1]:
        what = f"--domains {spec!r} does not name two" if spec else f"{run.path} has {len(known)}"
        raise UserError(
            f"{what}; choose two of {', '.join(known)}: --domains {known[0]},{known[1]}"
        )
    for name in named:
        reader.in_domain(name)
    counts = reader.store.images["domain"].value_counts()
    a, b = named
    return Domains(a, b, int(counts.get(a, 0)), int(counts.get(b, 0)))


def make_stand_in(latent: int, model: str, label: str = STAND_IN) -> Explanation:
    """In the place of a label that is still to come."""
    unnamed = Explanation.failed(latent, AnsweredBy(model, ""), "", {})
    return dataclasses.replace(unnamed, label=label, failure=None)
