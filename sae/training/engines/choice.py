"""A model and an objective -> the engine that trains it: the one asked for, or the fastest."""

from __future__ import annotations

from sae.core.errors import UserError
from sae.model.sae import SAE
from sae.training.engines import self_check
from sae.training.engines.interface import BACKENDS, Engine, Objective, Reduce
from sae.training.engines.plain import PlainEngine
from sae.training.engines.sparse.engine import SparseEngine, why_not
from sae.training.engines.update import Update


def engine_for(
    model: SAE,
    objective: Objective,
    backend: str = "auto",
    seed: int = 0,
    reduce: Reduce | None = None,
    update: Update = Update(),
) -> Engine:
    """The engine that trains `model`, which is on its device already.

    "auto" is sparse on a CPU and triton on a GPU, where they can do what is asked for, else plain.
    Triton is taken only after a rehearsal on that GPU; a warning says what speaks against it.
    `seed` draws dropout and random prefixes. With `reduce` every process steps on its
    part of the batch and the result is that of one process on the whole. Raises `UserError` for a
    backend that is not known, or that cannot do what was asked.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is not known; known: {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = _fastest(model, objective, reduce, update)
    if backend == "plain":
        return PlainEngine(model, objective, seed=seed, reduce=reduce, update=update)
    if backend == "sparse":
        return SparseEngine(model, objective, reduce=reduce, update=update)
    try:
        from sae.training.engines.triton.engine import TritonEngine
    except ModuleNotFoundError as error:
        obstacle = f"{error.name} is not installed"
        raise UserError(
            f"backend 'triton' cannot do this: {obstacle}; try --backend auto"
        ) from None
    return TritonEngine(model, objective, reduce=reduce, update=update)


def _fastest(model: SAE, objective: Objective, reduce: Reduce | None, update: Update) -> str:
    """The fastest engine that can do this, and is known to do it right."""
    if model.W_enc.device.type == "cpu":
        return "plain" if why_not(model, objective, update) else "sparse"
    try:
        from sae.training.engines.triton import engine as triton
    except ModuleNotFoundError:
        return "plain"
    if triton.why_not(model, objective, update):
        return "plain"
    passes = self_check.rehearse(triton.TritonEngine, model, objective, reduce)
    return "triton" if passes else "plain"
