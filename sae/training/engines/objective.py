"""What a step costs, for every rule and objective, with gradients by autograd.

Several processes may share a batch. Every loss is then a process's own sum, divided by what belongs
to the whole batch (`Whole`), so that losses and gradients need only be added up.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sae import SAE
from sae.model.sparsity import BatchTopK, Codes, JumpReLU, Rule
from sae.training.engines import losses
from sae.training.engines.interface import Judge, Objective, Reduce
from sae.training.engines.matryoshka import decode_prefixes, nested_fvu, random_prefixes

MULTI_WEIGHT = 1 / 8
"""Of multi-TopK's FVU (Gao et al. 2024)."""


class Costs(NamedTuple):
    """What a batch costs; of a part of a batch, its share of that."""

    loss: Tensor
    """() what is minimised."""
    fvu: Tensor
    aux: Tensor
    """AuxK or the ghost loss, before its weight."""
    kept: Codes | Tensor
    """Codes, or activations (n, n_latents)."""
    n: Tensor | int
    """Tokens in the whole batch."""
    border: Tensor | None
    """BatchTopK: the smallest activation that was kept, over the whole batch."""
    n_positive: Tensor | None
    """See `StepResult.n_positive`."""


def costs_of(
    model: SAE,
    objective: Objective,
    x: Tensor,
    k: int,
    dead: Tensor | Judge,
    draws: Draws,
    reduce: Reduce | None = None,
    is_cls: Tensor | None = None,
) -> Costs:
    """The losses of centred tokens x (n, d), with gradients; arguments as for `Engine.step`."""
    whole = whole_of(x, reduce)
    measure = _measure(objective, x, whole, is_cls)
    encoded = model.pre_of_centred(x) if objective.pre_bias else _without_pre_bias(model, x)
    pre = draws.dropped(encoded, objective.dropout)  # (n, n_latents)
    kept, border = _kept(model.sparsity, pre, k, reduce)
    n_positive = None
    if not isinstance(dead, Tensor):
        n_positive = n_active_by_latent(_positive(kept), model.n_latents)
        if reduce is not None:
            reduce([n_positive])
        dead = dead(n_positive)
    prefixes = draws.prefixes(objective, model.n_latents)
    if prefixes:
        x_hats = decode_prefixes(kept, model.W_dec, prefixes) + model.b_dec  # (n, n_prefixes, d)
        x_hat, loss = x_hats[:, -1], nested_fvu(x, x_hats, *measure)
    else:
        x_hat = _rebuilt(model, kept)
        loss = losses.fvu(x, x_hat, *measure)
    is_fvu = objective.loss == "fvu" and measure.weights is None and not prefixes
    fvu = loss if is_fvu else losses.fvu(x, x_hat, whole.variance)
    if objective.multi_k:
        more, _ = _kept(model.sparsity, pre, objective.multi_k * k, reduce)
        loss = loss + MULTI_WEIGHT * losses.fvu(x, _rebuilt(model, more), *measure)
    loss = loss + _penalties(model, objective, pre, kept, whole)
    aux = _revival(model, objective, x, x_hat, pre, dead, whole, reduce)
    weight = objective.ghost_weight if objective.ghost else objective.alpha
    return Costs(loss + weight * aux, fvu, aux, kept, whole.n, border, n_positive)


class Whole(NamedTuple):
    """What the whole batch decides, of which a process may hold a part."""

    n: Tensor | int
    """Tokens."""
    variance: Tensor
    """() sum of squares about the mean."""


def whole_of(x: Tensor, reduce: Reduce | None) -> Whole:
    """Of a batch of which `x` (n, d) is this process's part, or all there is without `reduce`."""
    if reduce is None:
        return Whole(len(x), losses.variance_of(x))
    sums = torch.cat([x.sum(0), x.new_tensor([len(x)])])
    reduce([sums])
    n = sums[-1]
    variance = (x - sums[:-1] / n).square().sum().view(1)
    reduce([variance])
    return Whole(n, variance.squeeze())


def n_active_by_latent(kept: Codes | Tensor, n_latents: int) -> Tensor:
    """Tokens on which each latent is active (n_latents,), as floats."""
    if isinstance(kept, Tensor):
        return (kept != 0).to(kept.dtype).sum(0)
    active = (kept.acts != 0).to(kept.acts.dtype).flatten()
    return active.new_zeros(n_latents).scatter_add_(0, kept.latents.flatten(), active)


def require_possible(model: SAE, objective: Objective) -> None:
    """Raise `UserError` when the model's rule cannot do what the objective asks."""
    rule, config = model.sparsity, model.config
    if objective.multi_k and not config.k:
        raise UserError(f"multi_k needs a rule with k; activation {config.activation!r} has none")
    if objective.l0 and not isinstance(rule, JumpReLU):
        raise UserError(f"l0 needs activation 'jumprelu', not {config.activation!r}")
    if objective.ghost not in ("", "ttt", "patchsae"):
        raise UserError(f"ghost {objective.ghost!r} is not known; known: 'ttt', 'patchsae'")
    prefixes = objective.prefixes
    if prefixes and (prefixes[-1] != model.n_latents or sorted(set(prefixes)) != list(prefixes)):
        raise UserError(f"prefixes {prefixes} must rise to n_latents {model.n_latents}")
    if prefixes and objective.n_random_prefixes:
        raise UserError("prefixes are fixed or random: give one of the two")


class Draws:
    """The random choices of one step, which `seed` and the step's number decide.

    The seed is the same in all processes that share a batch, and so are prefixes and dropout.
    """

    def __init__(self, seed: int, step: int) -> None:
        self._seed, self._step = seed, step

    def prefixes(self, objective: Objective, n_latents: int) -> tuple[int, ...]:
        """Matryoshka's prefix sizes in this step; () where the whole dictionary is all there is."""
        if not objective.n_random_prefixes:
            return objective.prefixes
        generator = self._generator("prefixes", torch.device("cpu"))
        return random_prefixes(n_latents, objective.n_random_prefixes, generator)

    def dropped(self, pre: Tensor, share: float) -> Tensor:
        """Pre-activations with a `share` of them at 0 and the rest larger for it."""
        if not share:
            return pre
        generator = self._generator("dropout", pre.device)
        chances = torch.rand(pre.shape, generator=generator, device=pre.device)
        return pre * (chances >= share) / (1 - share)

    def _generator(self, purpose: str, device: torch.device) -> torch.Generator:
        # A hash, since a CPU generator looks at 32 bits of its seed, and neighbours must differ.
        seed = zlib.crc32(f"{purpose} {self._seed} {self._step}".encode())
        return torch.Generator(device).manual_seed(seed)


class _Measure(NamedTuple):
    """How the squares that are left add up to the loss."""

    divisor: Tensor
    """(): their sum is over this."""
    weights: Tensor | None
    """(n, 1) of each token's; None: 1."""


def _measure(objective: Objective, x: Tensor, whole: Whole, is_cls: Tensor | None) -> _Measure:
    divisor, weights = whole.variance, None
    if objective.loss != "fvu":
        divisor = x.new_tensor(1.0) * whole.n * x.shape[1]
    if objective.loss == "mse_over_norm":
        weights = 1 / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
    if objective.cls_weight != 1 and is_cls is not None:
        heavy = torch.where(is_cls, objective.cls_weight, 1.0).to(x).unsqueeze(1)
        weights = heavy if weights is None else heavy * weights
    return _Measure(divisor, weights)


def _without_pre_bias(model: SAE, x: Tensor) -> Tensor:
    """Pre-activations of an encoder that leaves b_dec in its input."""
    return F.linear(x, model.W_enc, model.b_enc)


def _positive(kept: Codes | Tensor) -> Codes | Tensor:
    """Without what is below 0, as a signed TopK has it."""
    return kept.relu() if isinstance(kept, Tensor) else kept._replace(acts=kept.acts.relu())


def _kept(
    rule: Rule, pre: Tensor, k: int, reduce: Reduce | None
) -> tuple[Codes | Tensor, Tensor | None]:
    if not isinstance(rule, BatchTopK):
        return rule.train(pre, k), None
    border = rule.border(pre, k, reduce)
    return rule.reaching(pre, border), border


def _rebuilt(model: SAE, kept: Codes | Tensor) -> Tensor:
    if isinstance(kept, Codes):
        return model.decode_centred(kept)
    return kept @ model.W_dec + model.b_dec


def _penalties(
    model: SAE, objective: Objective, pre: Tensor, kept: Codes | Tensor, whole: Whole
) -> Tensor:
    """What keeps the latents sparse where no k does."""
    penalty = pre.new_zeros(())
    if objective.l1:
        acts = kept.acts if isinstance(kept, Codes) else kept
        penalty = penalty + objective.l1 * losses.l1_norm(acts, whole.n)
    rule = model.sparsity
    if objective.l0 and isinstance(rule, JumpReLU):
        penalty = penalty + objective.l0 * rule.n_active(pre).sum() / whole.n
    return penalty


def _revival(
    model: SAE,
    objective: Objective,
    x: Tensor,
    x_hat: Tensor,
    pre: Tensor,
    dead: Tensor,
    whole: Whole,
    reduce: Reduce | None,
) -> Tensor:
    """AuxK, or the ghost loss that stands in for it."""
    residual = (x - x_hat).detach()
    if not bool(dead.any()):
        return x.new_zeros(())
    if objective.ghost == "ttt":
        return losses.ttt_ghost_loss(residual, pre, model.W_dec, model.b_dec, dead, whole.n)
    if objective.ghost == "patchsae":
        return losses.patchsae_ghost_loss(x, x_hat, pre, model.W_dec, dead, whole.n)
    if objective.auxk == "total":
        auxk = losses.sparsify_auxk_loss
        return auxk(residual, pre, model.W_dec, dead, objective.k_aux, whole.variance)
    n, variance = whole_of(residual, reduce)
    variance = losses.floor_variance(variance, n, model.d)
    return losses.auxk_loss(residual, pre, model.W_dec, dead, objective.k_aux, variance)
