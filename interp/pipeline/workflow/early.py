"""What later steps will need -> one clear error before any work, where it is not there."""

from __future__ import annotations

from interp.evidence.groups.named import require_groups
from interp.llm.server.http import require_key
from interp.local.vocabulary import load_vocabulary
from interp.pipeline.paid.model import checked_price, client_config, model_info
from interp.pipeline.settings import ModelSettings
from interp.pipeline.workflow.names import AUTO, COLLECT, EVAL, EXPLAIN, SCORE, TRANSFER
from interp.pipeline.workflow.plan import Plan
from interp.pipeline.workflow.settings import Settings
from interp.pipeline.workflow.wording import in_words_of_run
from sae.clip.class_vectors import fill_template
from sae.core.places import require_sae
from sae.evaluation.threshold import require_batch_topk
from sae.training.config import TrainConfig


def require_settings(settings: Settings) -> None:
    """Raise `UserError` for what a later step would refuse: files that are not there, and settings
    of two steps that do not fit together.
    """
    evaluation, collect = settings.evaluation, settings.collect
    with in_words_of_run(EVAL):
        if evaluation.against is not None:
            require_sae(evaluation.against)
        if evaluation.calibrate and not settings.sae:
            require_batch_topk(settings.training.get("activation", TrainConfig().activation))
        for text in evaluation.template or []:
            fill_template(text, "cup")
    with in_words_of_run(COLLECT):
        if settings.groups is not None:
            require_groups(settings.groups, collect.no_groups)
        collect.require_tokens(settings.source.tokens, str(settings.store))
    with in_words_of_run(EXPLAIN):
        words = settings.explainer.vocabulary
        if settings.explainer.is_local and words != AUTO:
            load_vocabulary(words, settings.source.clip)
    with in_words_of_run(SCORE):
        if settings.judging.second_judge:
            settings.judging.second_for(settings.judge)


def require_models(settings: Settings, plan: Plan) -> None:
    """Look up the models of the steps that still have something to ask.

    Raises `UserError` for a key that is missing, a model that is not there or reads no images, and
    a price that is needed and not known.
    """
    models: list[tuple[ModelSettings, tuple[str, ...]]] = [
        (settings.explainer, (EXPLAIN, TRANSFER)),
        (settings.judge, (SCORE, TRANSFER)),
    ]
    if settings.naming.is_choice:
        models.append((settings.best_of.judge_for(settings.explainer), (EXPLAIN,)))
    if settings.judging.second_judge:
        models.append((settings.judging.second_for(settings.judge), (SCORE,)))
    for todo in plan.todos:
        if todo.is_done or not (todo.cost or todo.is_unknown):
            continue
        for model, steps in models:
            if not model.is_local and todo.step in steps:
                require_key(client_config(model))
                checked_price(model, model_info(model))
