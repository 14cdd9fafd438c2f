"""The plain engine: autograd and torch's Adam, for every rule and objective."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sae.model.sae import SAE
from sae.model.sparsity import BatchTopK
from sae.training.engines.adam import Adam
from sae.training.engines.interface import Judge, Objective, Reduce, StepResult
from sae.training.engines.objective import (
    Costs,
    Draws,
    costs_of,
    n_active_by_latent,
    require_possible,
)
from sae.training.engines.update import Update


class PlainEngine:
    """See `interface.Engine`. The measure of the others, and slower than they are."""

    name = "plain"

    def __init__(
        self,
        model: SAE,
        objective: Objective,
        *,
        seed: int = 0,
        reduce: Reduce | None = None,
        update: Update = Update(),
    ) -> None:
        """Raises `UserError` when the model's rule cannot do what the objective asks."""
        require_possible(model, objective)
        self.model, self.objective, self.update = model, objective, update
        self._seed = seed
        self._reduce = reduce
        self._adam = Adam(model, update)
        model.W_dec.requires_grad_(update.decoder != "frozen")
        self._behind: dict[str, Tensor] = {}
        """What the parameters are of which the model's are made, where that is not the same."""
        with torch.no_grad():
            if update.decoder == "at_use":
                self._behind["row_lengths"] = torch.ones_like(model.b_enc)
            if not objective.pre_bias:
                self._behind["b_enc_alone"] = model.b_enc - model.W_enc @ model.b_dec

    def step(
        self,
        x: Tensor,
        *,
        dead: Tensor,
        judge: Judge | None = None,
        is_cls: Tensor | None = None,
        k: int,
        lr: float,
    ) -> StepResult:
        """See `Engine.step`."""
        model, draws = self.model, Draws(self._seed, self._adam.n_steps)
        if not self.objective.pre_bias:
            model.b_enc.data.copy_(self._behind["b_enc_alone"])
        costs = costs_of(model, self.objective, x, k, judge or dead, draws, self._reduce, is_cls)
        costs.loss.backward()  # type: ignore[no-untyped-call]
        result = self._summed(costs)
        self._move(lr)
        rule = self.model.sparsity
        if isinstance(rule, BatchTopK) and costs.border is not None:
            rule.learn(costs.border)
        return result

    def state(self) -> dict[str, Tensor]:
        """Copies of Adam's moments, by parameter, and the number of steps done."""
        return self._adam.state() | {name: value.clone() for name, value in self._behind.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave: the next step is what it would have been."""
        self._adam.restore(state)
        for name, value in self._behind.items():
            value.copy_(state[name])

    @torch.no_grad()
    def _move(self, lr: float) -> None:
        """One step of Adam by the gradients of all processes."""
        model, bound, W_dec = self.model, self.update.grad_clip, self.model.W_dec
        lengths = self._behind.get("row_lengths")
        if lengths is not None and W_dec.grad is not None:  # by the rows, not by their directions
            model.project_decoder_gradient()
            W_dec.grad.div_(lengths.unsqueeze(1))
            W_dec.mul_(lengths.unsqueeze(1))
        if bound:
            torch.nn.utils.clip_grad_norm_(model.parameters(), bound)
        if lengths is None:
            model.project_decoder_gradient()
        self._adam.step(lr)
        if lengths is not None:
            lengths.copy_(W_dec.norm(dim=1))
        if self.update.decoder != "frozen":
            model.normalise_decoder()
        if not self.objective.pre_bias:
            self._behind["b_enc_alone"].copy_(model.b_enc)
            model.b_enc.add_(model.W_enc @ model.b_dec)

    @torch.no_grad()
    def _summed(self, costs: Costs) -> StepResult:
        """Add up figures and gradients of all processes that share the batch."""
        n_active = n_active_by_latent(costs.kept, self.model.n_latents)
        figures = torch.stack([costs.loss, costs.fvu, costs.aux, n_active.sum() / costs.n])
        if self._reduce is not None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._reduce([*gradients, figures, n_active])
        loss, fvu, aux, l0 = figures.unbind()
        return StepResult(loss, fvu, aux, l0, n_active > 0, costs.n_positive)
