"""What paid steps will need -> one clear error before any work, where it is not there."""

from __future__ import annotations

from interp.llm.server.http import require_key
from interp.pipeline.paid.model import checked_price, client_config, model_info
from interp.pipeline.settings import ModelSettings
from interp.pipeline.workflow.names import EXPLAIN, SCORE, TRANSFER
from interp.pipeline.workflow.plan import Plan
from interp.pipeline.workflow.settings import Settings


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
    for todo in plan.todos:
        if todo.is_done or not (todo.cost or todo.is_unknown):
            continue
        for model, steps in models:
            if not model.is_local and todo.step in steps:
                require_key(client_config(model))
                checked_price(model, model_info(model))
