"""Before anything is paid: what a stage would cost, and its first requests as files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from interp.explain.examples import choose
from interp.explain.explainer import ExplainConfig, VlmExplainer, explain_prompt
from interp.explain.run import pending_latents
from interp.llm.cost.estimate import N_SAMPLE, Estimate, estimate
from interp.llm.cost.tariff import Tariff
from interp.llm.ledger.ledger import Ledger
from interp.llm.server.http import form_scope
from interp.llm.server.json_mode import FormLadder
from interp.llm.types import Question
from interp.pictures.cache import PictureCache
from interp.pipeline.dry_run import FOLDER, Unasked, write_requests
from interp.pipeline.paid_model import (
    JUDGE_SHAPE,
    client_config,
    known_price,
    layout_of,
    listed_model,
)
from interp.pipeline.settings import ModelSettings, Work
from interp.pipeline.stages import explain_config, labels_to_test, patch_grid, score_stage
from interp.records.types import Explanation
from interp.run.run import Run
from interp.score.judge import VlmJudge, judge_prompt
from interp.score.latent import score_questions
from interp.score.run import n_questions, pending_tests
from sae.core.errors import UserError

Item = TypeVar("Item")


def estimate_explain(
    run: Run, settings: ModelSettings, latents: Sequence[int], work: Work
) -> Estimate:
    """What `interp explain` with the same settings would ask for. Opens no socket."""
    config = explain_config(settings)
    todo = _to_explain(run, settings, config, latents, work)
    sample = list(_explain_questions(run, settings, config, _spread_out(todo)))
    counts = (len(todo), len(todo))
    return _estimated(run, settings, "explain", config.layout, counts, sample)


def estimate_score(
    run: Run, settings: ModelSettings, control: str, latents: Iterable[int] | None, work: Work
) -> Estimate:
    """What `interp score` with the same settings would ask for. Opens no socket."""
    todo = _to_score(run, settings, control, latents, work)
    n_grids = [n_questions(run.evidence.of(test.latent)) for test in todo]
    sample = list(_score_questions(run, settings, control, _spread_out(todo)))
    counts = (sum(n > 0 for n in n_grids), sum(n_grids))
    layout = layout_of(settings, JUDGE_SHAPE)
    return _estimated(run, settings, score_stage(control), layout, counts, sample)


def dry_run_explain(
    run: Run, settings: ModelSettings, latents: Sequence[int], work: Work
) -> list[Path]:
    """Write the first `work.dry_run` requests of `interp explain`. Opens no socket."""
    config = explain_config(settings)
    todo = _to_explain(run, settings, config, latents, work)
    return _written(run, settings, _explain_questions(run, settings, config, todo), work)


def dry_run_score(
    run: Run, settings: ModelSettings, control: str, latents: Iterable[int] | None, work: Work
) -> list[Path]:
    """Write the first `work.dry_run` requests of `interp score`. Opens no socket."""
    todo = _to_score(run, settings, control, latents, work)
    return _written(run, settings, _score_questions(run, settings, control, todo), work)


def _to_explain(
    run: Run, settings: ModelSettings, config: ExplainConfig, latents: Sequence[int], work: Work
) -> list[int]:
    """Latents that would be asked about: to be done, and with images enough."""
    _refuse_local(settings)
    todo = pending_latents(
        run.explanations,
        settings.model,
        explain_prompt(config),
        latents,
        retry_failed=work.retry_failed,
    )
    return [
        latent
        for latent in todo[: work.limit]
        if len(choose(run.evidence.of(latent), config.show).positives) >= config.show.min_positives
    ]


def _to_score(
    run: Run, settings: ModelSettings, control: str, latents: Iterable[int] | None, work: Work
) -> list[Explanation]:
    _refuse_local(settings)
    prompt = judge_prompt(layout_of(settings, JUDGE_SHAPE))
    tests = labels_to_test(run, latents)
    todo = pending_tests(
        run.scores,
        run.evidence,
        settings.model,
        prompt,
        tests,
        control,
        retry_failed=work.retry_failed,
    )
    return todo[: work.limit]


def _refuse_local(settings: ModelSettings) -> None:
    if settings.is_local:
        raise UserError("--model local sends nothing and costs nothing; name a vision model")


def _explain_questions(
    run: Run, settings: ModelSettings, config: ExplainConfig, latents: Iterable[int]
) -> Iterator[Question]:
    source = PictureCache(run.evidence)
    explainer = VlmExplainer(Unasked(settings.model), config, patch_grid(run))
    for latent in latents:
        question = explainer.question(source.of(latent), source.image)
        if question is not None:
            yield question


def _score_questions(
    run: Run, settings: ModelSettings, control: str, tests: Iterable[Explanation]
) -> Iterator[Question]:
    source = PictureCache(run.evidence)
    judge = VlmJudge(Unasked(settings.model), layout_of(settings, JUDGE_SHAPE))
    for test in tests:
        evidence = source.of(test.latent)
        yield from score_questions(evidence, test, judge, source.image, control=control)


def _spread_out(items: Sequence[Item]) -> list[Item]:
    """An even sample."""
    step = max(1, len(items) // N_SAMPLE)
    return list(items[::step][:N_SAMPLE])


def _estimated(
    run: Run,
    settings: ModelSettings,
    stage: str,
    layout: str,
    counts: tuple[int, int],
    sample: Sequence[Question],
) -> Estimate:
    info = listed_model(settings)
    price = known_price(settings, info)
    tariff = Tariff(settings.model, price, info.context if info else None)
    with Ledger(run.ledger) as ledger:
        billed = ledger.billed(settings.model, stage)
    return estimate(
        stage,
        settings.model,
        layout,
        counts,
        sample,
        price,
        billed,
        [tariff.worst(question) for question in sample],
    )


def _written(
    run: Run, settings: ModelSettings, questions: Iterable[Question], work: Work
) -> list[Path]:
    config = client_config(settings)
    with Ledger(run.ledger) as ledger:
        form = FormLadder(ledger, form_scope(config)).form
    first = itertools.islice(questions, work.dry_run)
    return write_requests(run.path / FOLDER, config, first, form)
