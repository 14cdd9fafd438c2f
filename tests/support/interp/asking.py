"""Explaining and scoring with any explainer and judge, as a stage does it with those of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from interp.explain.explainer import Explainer
from interp.explain.run import ExplainSummary, pending_latents
from interp.explain.run import summarise as summarise_explanations
from interp.llm.scheduler import append_run
from interp.llm.types import CONCURRENCY, Width
from interp.pictures.cache import EvidenceSource
from interp.records.types import AnsweredBy, Explanation, Score
from interp.run.results import Results
from interp.score.judge import Judge
from interp.score.latent import score_latent
from interp.score.run import ScoreSummary, summarise
from interp.score.run import pending_tests as find_pending
from interp.score.sampling import SampleConfig


def explain_run(
    path: Path,
    source: EvidenceSource,
    explainer: Explainer,
    latents: Sequence[int],
    *,
    concurrency: Width = CONCURRENCY,
    limit: int | None = None,
    retry_failed: bool = False,
) -> ExplainSummary:
    """Explain what is pending in `path` (a folder's explanations.jsonl)."""
    results, by = Results(path.parent), AnsweredBy(explainer.name, explainer.prompt)
    todo = pending_latents(results.explanations, by, latents, retry_failed=retry_failed)
    made: list[Explanation] = []

    async def work(latent: int) -> Explanation:
        return await explainer.explain(source.of(latent), source.image)

    _append(path, results, todo[:limit], work, concurrency, made.append, explainer)
    n_skipped = len(set(latents)) - len(todo)
    return summarise_explanations(results.explanations, by, latents, made, n_skipped)


def score_run(
    path: Path,
    source: EvidenceSource,
    judge: Judge,
    explanations: Sequence[Explanation],
    *,
    control: str = "",
    config: SampleConfig | None = None,
    concurrency: Width = CONCURRENCY,
    on_record: Callable[[Score], None] | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
) -> ScoreSummary:
    """Score what is pending in `path` (a folder's scores.jsonl)."""
    results, by = Results(path.parent), AnsweredBy(judge.name, judge.prompt)
    todo = find_pending(
        results.score_lines, source, by, explanations, control, config, retry_failed=retry_failed
    )

    async def work(test: Explanation) -> Score:
        evidence = source.of(test.latent)
        return await score_latent(evidence, test, judge, source.image, config, control)

    _append(path, results, todo[:limit], work, concurrency, on_record, judge)
    is_adaptive = bool(config and config.steps)
    return _summary(results, by, control, explanations, is_adaptive)


def pending_tests(
    path: Path,
    source: EvidenceSource,
    name: str,
    prompt: str,
    explanations: Iterable[Explanation],
    control: str = "",
    config: SampleConfig | None = None,
    *,
    retry_failed: bool = False,
) -> list[Explanation]:
    """What `interp.score.run.pending_tests` says of the lines of `path`."""
    lines, by = Results(path.parent).score_lines, AnsweredBy(name, prompt)
    return find_pending(lines, source, by, explanations, control, config, retry_failed=retry_failed)


def stored_summary(
    path: Path, name: str, prompt: str, control: str, explanations: Iterable[Explanation]
) -> ScoreSummary:
    """What `path` holds of the labelled latents."""
    return _summary(Results(path.parent), AnsweredBy(name, prompt), control, explanations)


def _summary(
    results: Results,
    by: AnsweredBy,
    control: str,
    explanations: Iterable[Explanation],
    is_adaptive: bool = False,
) -> ScoreSummary:
    scores = (line.score for line in results.score_lines)
    latents = {e.latent for e in explanations if e.label is not None}
    return summarise(scores, by, control, latents, is_adaptive=is_adaptive)


def _append(
    path: Path,
    results: Results,
    todo: Sequence[Any],
    work: Any,
    concurrency: Width,
    on_record: Callable[[Any], None] | None,
    answerer: Explainer | Judge,
) -> None:
    def note(record: Any) -> None:
        results.add(record)
        if on_record is not None:
            on_record(record)

    append_run(path, todo, work, concurrency=concurrency, on_record=note, opened=(answerer,))
