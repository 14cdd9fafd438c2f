"""Adam over a model's parameters, with a state that any engine on torch's Adam can take over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sae.model.sae import SAE
from sae.training.engines.update import Update

N_STEPS = "n_steps"
MOMENTS = ("exp_avg", "exp_avg_sq")


class Adam:
    """torch's fused Adam, or AdamW; the learning rate comes with each step."""

    def __init__(self, model: SAE, update: Update = Update()) -> None:
        self.model = model
        self.n_steps = 0
        kind = torch.optim.AdamW if update.weight_decay else torch.optim.Adam
        self._adam = kind(
            model.parameters(),
            betas=(update.beta1, update.beta2),
            eps=update.eps,
            weight_decay=update.weight_decay,
            fused=True,
        )
        zeros = {
            f"{name}.{moment}": torch.zeros_like(value)
            for name, value in model.named_parameters()
            for moment in MOMENTS
        }
        self.restore(zeros | {N_STEPS: torch.zeros((), dtype=torch.int64)})

    def step(self, lr: float) -> None:
        """Move every parameter that has a gradient, and forget the gradients."""
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        self._adam.zero_grad()
        self.n_steps += 1

    def state(self) -> dict[str, Tensor]:
        """Copies of the moments, by parameter, and the number of steps done."""
        moments = {
            f"{name}.{moment}": self._adam.state[value][moment].clone()
            for name, value in self.model.named_parameters()
            for moment in MOMENTS
        }
        return moments | {N_STEPS: torch.tensor(self.n_steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave: the next step is what it would have been."""
        self.n_steps = int(state[N_STEPS])
        for name, value in self.model.named_parameters():
            self._adam.state[value] = {
                "step": torch.tensor(float(self.n_steps), device=value.device),
                **{m: torch.empty_like(value).copy_(state[f"{name}.{m}"]) for m in MOMENTS},
            }
