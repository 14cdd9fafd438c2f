"""The sparse engine: TopK and BatchTopK with AuxK on torch alone; only the encode product is dense.

All else touches the latents that a token keeps, in the order of the latents: a gradient row is a
weighted sum of tokens, as a token's reconstruction is a weighted sum of decoder rows. Gradients
are written by hand. Runs on any device; made for CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sae import SAE
from sae.model.sparsity import BatchTopK
from sae.training.engines.adam import Adam
from sae.training.engines.interface import Objective, Reduce, StepResult
from sae.training.engines.losses import floor_variance
from sae.training.engines.objective import whole_of
from sae.training.engines.sparse.auxk import Rows, revival
from sae.training.engines.sparse.encode import Kept, Precision, strongest, strongest_of_batch
from sae.training.engines.sparse.products import HAS_ONEDNN, dots, meetings, mix, sums, totals
from sae.training.engines.update import Update

__all__ = ["Selection", "SparseEngine", "why_not"]

Selection = Literal["auto", "float32", "bfloat16"]
"""Arithmetic of TopK's encode product; what is kept is decided in float32 in any case. "auto" is
what is faster on the device."""
WORTH_IT = 1 << 20
"""Encoder weights from which bfloat16 with its second look is faster than float32 alone."""


def why_not(model: SAE, objective: Objective, update: Update = Update()) -> str:
    """What keeps this engine from the model or what is asked for; "" where nothing does."""
    if model.W_enc.dtype != torch.float32:
        return f"it trains float32 weights, not {model.W_enc.dtype}"
    if (rule := model.config.activation) not in ("topk", "batch_topk"):
        return f"it knows the activations 'topk' and 'batch_topk', not {rule!r}"
    unknown = objective.beyond_auxk() or update.changed("decoder", "grad_clip")
    return f"it does not know {unknown}" if unknown else ""


class SparseEngine:
    """See `interface.Engine`. Does what the plain engine does; rounds differently."""

    name = "sparse"

    def __init__(
        self,
        model: SAE,
        objective: Objective,
        *,
        reduce: Reduce | None = None,
        selection: Selection = "auto",
        update: Update = Update(),
    ) -> None:
        """Raises `UserError` for what `why_not` names."""
        if obstacle := why_not(model, objective, update):
            raise UserError(f"backend 'sparse' cannot do this: {obstacle}; try --backend auto")
        if selection not in get_args(Selection):
            raise ValueError(f"selection {selection!r} is none of {get_args(Selection)}")
        if selection == "bfloat16" and model.config.activation != "topk":
            raise ValueError(f"{model.config.activation} selects in float32 only")
        self.model, self.objective = model, objective
        self.precision: Precision = _fastest(model) if selection == "auto" else selection
        self._reduce = reduce
        self._adam = Adam(model, update)

    @torch.no_grad()
    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor, **_unknown: object) -> StepResult:
        """See `Engine.step`; `judge` and `is_cls` belong to objectives that `why_not` refuses."""
        model = self.model
        whole = whole_of(x, self._reduce)
        centred = x - model.b_dec
        kept = self._encode(centred, min(k, model.n_latents))
        error = mix(kept.latents, kept.acts, model.W_dec) + model.b_dec - x  # (n, d)
        slope = error * (2 / whole.variance)  # of the FVU by x_hat

        at = meetings(kept.latents, model.n_latents)
        acts = kept.acts.flatten()[at.order]
        is_active = acts > 0
        by_act = dots(at, model.W_dec, slope) * is_active
        gradients = Rows(sums(at, by_act, centred), totals(at, by_act), sums(at, acts, slope))
        along = totals(at, acts * by_act)
        aux = self._revive(centred, error, dead, gradients, along)
        # Only what lies across a decoder row: the rest would change its length alone.
        gradients.W_dec.addcmul_(along[:, None], model.W_dec, value=-1)
        b_dec = slope.sum(0) - gradients.b_enc @ model.W_enc

        n_active = totals(at, is_active.float())
        fvu = error.square().sum() / whole.variance
        loss = fvu + self.objective.alpha * aux
        figures = torch.stack([loss, fvu, aux, n_active.sum() / whole.n])
        if self._reduce is not None:
            self._reduce([*gradients, b_dec, figures, n_active])
        self._update(gradients, b_dec, lr)
        loss, fvu, aux, l0 = figures.unbind()
        return StepResult(loss, fvu, aux, l0, n_active > 0)

    def state(self) -> dict[str, Tensor]:
        """Copies of Adam's moments, by parameter, and the number of steps done."""
        return self._adam.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self._adam.restore(state)

    def _encode(self, centred: Tensor, k: int) -> Kept:
        W_enc, b_enc, rule = self.model.W_enc, self.model.b_enc, self.model.sparsity
        if not isinstance(rule, BatchTopK):
            return strongest(centred, W_enc, b_enc, k, self.precision)
        kept, border = strongest_of_batch(centred, W_enc, b_enc, k, rule, self._reduce)
        rule.learn(border)
        return kept

    def _revive(
        self, centred: Tensor, error: Tensor, dead: Tensor, gradients: Rows, along: Tensor
    ) -> Tensor:
        """AuxK (); adds its gradients, with their weight, to those of the dead latents."""
        which = dead.nonzero().squeeze(1)
        if len(which) == 0:
            return error.new_zeros(())
        model, objective = self.model, self.objective
        n, variance = whole_of(error, self._reduce)
        variance = floor_variance(variance, n, model.d)
        rows = Rows(model.W_enc[which], model.b_enc[which], model.W_dec[which])
        found = revival(rows, centred, error, objective.k_aux, variance)
        for gradient, part in zip(gradients, found.gradients, strict=True):
            gradient.index_add_(0, which, part, alpha=objective.alpha)
        along.index_add_(0, which, found.along, alpha=objective.alpha)
        return found.loss

    def _update(self, gradients: Rows, b_dec: Tensor, lr: float) -> None:
        model = self.model
        model.W_enc.grad, model.b_enc.grad, model.W_dec.grad = gradients
        model.b_dec.grad = b_dec
        self._adam.step(lr)
        lengths = torch.linalg.vector_norm(model.W_dec, dim=1, keepdim=True)
        model.W_dec.div_(lengths.clamp_(min=1e-12))


def _fastest(model: SAE) -> Precision:
    if model.config.activation != "topk":
        return "float32"
    if model.W_enc.is_cuda:
        has_products = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_products = HAS_ONEDNN and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if has_products and model.W_enc.numel() >= WORTH_IT else "float32"
