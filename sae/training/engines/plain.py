"""The plain engine: autograd and torch's Adam, for every rule and objective."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sae.model.sae import SAE
from sae.model.sparsity import BatchTopK
from sae.training.engines.adam import Adam
from sae.training.engines.interface import Objective, Reduce, StepResult
from sae.training.engines.objective import (
    Costs,
    Draws,
    costs_of,
    n_active_by_latent,
    require_possible,
)


class PlainEngine:
    """See `interface.Engine`. The measure of the others, and slower than they are."""

    name = "plain"

    def __init__(
        self, model: SAE, objective: Objective, *, seed: int = 0, reduce: Reduce | None = None
    ) -> None:
        """Raises `UserError` when the model's rule cannot do what the objective asks."""
        require_possible(model, objective)
        self.model, self.objective = model, objective
        self._seed = seed
        self._reduce = reduce
        self._adam = Adam(model)

    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor) -> StepResult:
        """See `Engine.step`."""
        draws = Draws(self._seed, self._adam.n_steps)
        costs = costs_of(self.model, self.objective, x, k, dead, draws, self._reduce)
        costs.loss.backward()  # type: ignore[no-untyped-call]
        result = self._summed(costs)
        self.model.project_decoder_gradient()
        self._adam.step(lr)
        self.model.normalise_decoder()
        rule = self.model.sparsity
        if isinstance(rule, BatchTopK) and costs.border is not None:
            rule.learn(costs.border)
        return result

    def state(self) -> dict[str, Tensor]:
        """Copies of Adam's moments, by parameter, and the number of steps done."""
        return self._adam.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave: the next step is what it would have been."""
        self._adam.restore(state)

    @torch.no_grad()
    def _summed(self, costs: Costs) -> StepResult:
        """Add up figures and gradients of all processes that share the batch."""
        n_active = n_active_by_latent(costs.kept, self.model.n_latents)
        figures = torch.stack([costs.loss, costs.fvu, costs.aux, n_active.sum() / costs.n])
        if self._reduce is not None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._reduce([*gradients, figures, n_active])
        loss, fvu, aux, l0 = figures.unbind()
        return StepResult(loss, fvu, aux, l0, n_active > 0)
