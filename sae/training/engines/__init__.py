"""One training step behind one interface: the plain engine, the sparse one and the Triton one.

An engine is made for a model and an objective by `engine_for`. Every engine does the same
arithmetic as the plain one, up to rounding; the fast ones do less of it, for fewer objectives.
The modules `sparse.engine` and `triton.engine` also hold `why_not(model, objective)`: what keeps
their engine from this model and objective, "" where it can.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from sae.core.errors import Notice, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sae.model.sae import SAE

__all__ = ["BACKENDS", "Engine", "Objective", "Reduce", "StepResult", "engine_for"]

BACKENDS = ("auto", "plain", "sparse", "triton")
BETAS = (0.9, 0.999)
"""Adam's decays, of every engine."""
EPS = 6.25e-10
"""Adam's epsilon, of every engine (Gao et al. 2024, A.1)."""

Reduce = Callable[[list["Tensor"]], None]
"""Sums each tensor over all processes, in place: every rank steps on its part of the batch."""


class StepResult(NamedTuple):
    """What a step saw, before its update. All on the device: nothing has waited for them."""

    loss: Tensor
    """() what was minimised."""
    fvu: Tensor
    """() fraction of variance unexplained, about the batch's own mean."""
    aux: Tensor
    """() AuxK, or the ghost loss, before its weight; 0 while no latent is dead."""
    l0: Tensor
    """() mean number of active latents a token."""
    fired: Tensor
    """(n_latents,) bool: active on any token of the batch."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a step minimises beside the FVU."""

    alpha: float = 1 / 32
    """Weight of AuxK."""
    k_aux: int
    """Dead latents that rebuild a token's residual."""
    ghost: Literal["", "ttt", "patchsae"] = ""
    """Ghost gradients in place of AuxK: TTT's or PatchSAE's form."""
    ghost_weight: float = 1.0
    multi_k: int = 0
    """Multi-TopK: also the FVU with `multi_k` times k latents, at weight 1/8; 0 = off."""
    l1: float = 0.0
    """Weight of the mean L1 norm of a token's activations (ReLU)."""
    l0: float = 0.0
    """Weight of the L0 penalty (JumpReLU)."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: prefix sizes, the last is n_latents; the loss is the mean over the prefixes."""
    n_random_prefixes: int = 0
    """Matryoshka with random prefixes (Pareto-distributed, as saev draws them), new each step."""
    dropout: float = 0.0
    """Share of the pre-activations that a training step leaves out."""


class Engine(Protocol):
    """Steps of Adam on a model's parameters, in place, with the moments that belong to them."""

    name: str

    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor) -> StepResult:
        """One step on the tokens `x` (n, d), which are centred and scaled (float32).

        `k` latents a token now (k warm-up; rules without k ignore it); `dead` (n_latents,) is a
        mask. Updates parameters and moments, takes out the part of the decoder's gradient along
        its rows, and brings the rows back to unit length.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts; what `restore` is given continues bit for bit."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...


def engine_for(
    model: SAE,
    objective: Objective,
    backend: str = "auto",
    seed: int = 0,
    reduce: Reduce | None = None,
) -> Engine:
    """The engine that trains `model`, which is on its device already.

    "auto" is sparse on a CPU and triton on a GPU, where they can do this objective, else plain.
    Triton is taken only after a rehearsal on that GPU; a warning says what speaks against it.
    `seed` draws dropout and random prefixes. With `reduce` every process steps on its
    part of the batch and the result is that of one process on the whole. Raises `UserError` for a
    backend that is not known, or that cannot do what was asked.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is not known; known: {', '.join(BACKENDS)}")
    if backend == "auto":
        return _make(_best(model, objective, reduce), model, objective, seed, reduce)
    if obstacle := _why_not(backend, model, objective):
        raise UserError(f"backend {backend!r} cannot do this: {obstacle}; try --backend auto")
    return _make(backend, model, objective, seed, reduce)


def _best(model: SAE, objective: Objective, reduce: Reduce | None) -> str:
    """The fastest engine that can do this, and is known to do it right."""
    fast = "sparse" if model.W_enc.device.type == "cpu" else "triton"
    if _why_not(fast, model, objective):
        return "plain"
    return fast if fast == "sparse" or _rehearses(model, objective, reduce) else "plain"


def _rehearses(model: SAE, objective: Objective, reduce: Reduce | None) -> bool:
    """Whether Triton does on this device, and on those of all other processes, what it should."""
    from sae.training.engines import self_check
    from sae.training.engines.triton.engine import TritonEngine

    obstacle = self_check.obstacle(TritonEngine, model, objective)
    if obstacle:
        message = f"the Triton engine is not used: {obstacle}; the plain one takes longer"
        warnings.warn(message, Notice, stacklevel=2)
    n_failed = model.W_enc.new_tensor(float(bool(obstacle)))
    if reduce is not None:
        reduce([n_failed])
    return not n_failed.item()


def _why_not(name: str, model: SAE, objective: Objective) -> str:
    if name == "plain":
        return ""
    if name == "sparse":
        from sae.training.engines.sparse import engine as sparse

        return sparse.why_not(model, objective)
    try:
        from sae.training.engines.triton import engine as triton
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    return triton.why_not(model, objective)


def _make(name: str, model: SAE, objective: Objective, seed: int, reduce: Reduce | None) -> Engine:
    if name == "plain":
        from sae.training.engines.plain import PlainEngine

        return PlainEngine(model, objective, seed=seed, reduce=reduce)
    if name == "sparse":
        from sae.training.engines.sparse.engine import SparseEngine

        return SparseEngine(model, objective, reduce=reduce)
    from sae.training.engines.triton.engine import TritonEngine

    return TritonEngine(model, objective, reduce=reduce)
