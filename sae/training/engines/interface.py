"""What an engine is given, what it does and what comes back: the interface of all engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


BACKENDS = ("auto", "plain", "sparse", "triton")
BETAS = (0.9, 0.999)
"""Adam's decays, where nothing else is asked for."""
EPS = 6.25e-10
"""Adam's epsilon likewise (Gao et al. 2024, A.1): gradients of rare latents are small, and 1e-8
would slow them down."""

Reduce = Callable[[list["Tensor"]], None]
"""Sums each tensor over all processes, in place: every rank steps on its part of the batch."""


Judge = Callable[["Tensor"], "Tensor"]
"""(n_latents,) tokens of a batch on which each latent was above 0 -> mask of the dead ones."""


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
    n_positive: Tensor | None = None
    """(n_latents,) tokens on which each latent was above 0, where `dead` had to know it."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a step minimises."""

    loss: Literal["fvu", "mse", "mse_over_norm"] = "fvu"
    """The unexplained: over the variance of the data; as the mean square of a number; or as the
    latter over the norm of its token (PatchSAE)."""
    cls_weight: float = 1.0
    """Of the CLS tokens' errors; those of other tokens weigh 1."""
    pre_bias: bool = True
    """Whether the parameters are of an encoder that takes b_dec out of its input."""
    alpha: float = 1 / 32
    """Weight of AuxK."""
    k_aux: int
    """Dead latents that rebuild a token's residual."""
    auxk: Literal["residual", "total"] = "residual"
    """AuxK over the variance of the residual; or over that of the data, by sparsify's rules."""
    dead_below: float = 0.0
    """Latents are dead by how often they fired, this batch included; 0: by how long not."""
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

    def beyond_auxk(self) -> str:
        """The first setting, by name, that asks for more than FVU and AuxK; "" where none does."""
        of_auxk = ("alpha", "k_aux", "ghost_weight")
        names = (field for field in fields(self) if field.name not in of_auxk)
        return next((f.name for f in names if getattr(self, f.name) != f.default), "")


class Engine(Protocol):
    """Steps of Adam on a model's parameters, in place, with the moments that belong to them."""

    name: str

    def step(
        self,
        x: Tensor,
        *,
        k: int,
        lr: float,
        dead: Tensor,
        judge: Judge | None = None,
        is_cls: Tensor | None = None,
    ) -> StepResult:
        """One step on the tokens `x` (n, d), which are centred and scaled (float32).

        `k` latents a token now (k warm-up; rules without k ignore it); `dead` (n_latents,) is a
        mask, which `judge` makes anew where the objective has `dead_below`; `is_cls` (n,) is a mask
        of the tokens that `cls_weight` is of. An engine that does not know one of these settings is
        never made for it, and looks at neither. Updates parameters and moments, takes out the part
        of the decoder's gradient along its rows, and brings the rows back to unit length.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts; what `restore` is given continues bit for bit."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None: ...
