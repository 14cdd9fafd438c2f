"""Small SAEs of every rule and loss for the plain engine."""

from __future__ import annotations

from dataclasses import replace

import torch

from sae.model.sae import SAE, SAEConfig
from sae.training.engines.interface import Objective
from sae.training.engines.objective import Draws

N, D, L, K = 24, 5, 14, 3
PLAIN = Objective(k_aux=4)
NONE_DEAD = torch.zeros(L, dtype=torch.bool)
SOME_DEAD = torch.arange(L) % 3 == 1
NO_DRAWS = Draws(0, 0)


VARIANTS: dict[str, tuple[str, Objective]] = {
    "topk": ("topk", PLAIN),
    "signed": ("signed_topk", PLAIN),
    "batch_topk": ("batch_topk", PLAIN),
    "jumprelu": ("jumprelu", replace(PLAIN, l0=0.01)),
    "relu": ("relu", replace(PLAIN, l1=0.02)),
    "ttt": ("signed_topk", replace(PLAIN, ghost="ttt", ghost_weight=0.3)),
    "patchsae": ("relu", replace(PLAIN, ghost="patchsae", l1=0.02)),
    "multi": ("topk", replace(PLAIN, multi_k=2)),
    "multi_batch": ("batch_topk", replace(PLAIN, multi_k=2)),
    "nested": ("topk", replace(PLAIN, prefixes=(2, 7, L))),
    "nested_relu": ("relu", replace(PLAIN, prefixes=(2, 7, L), l1=0.02)),
    "random": ("batch_topk", replace(PLAIN, n_random_prefixes=4)),
    "mse": ("relu", replace(PLAIN, loss="mse", l1=0.02)),
    "nested_over_norm": ("topk", replace(PLAIN, loss="mse_over_norm", prefixes=(2, 7, L))),
    "total": ("topk", replace(PLAIN, auxk="total")),
    "no_pre_bias": ("signed_topk", replace(PLAIN, pre_bias=False)),
}


def model_of(activation: str = "topk") -> SAE:
    """In float64, with every parameter away from its start; half of the latents rarely fire."""
    k = 0 if activation in ("relu", "jumprelu") else K
    model = SAE(SAEConfig(d=D, n_latents=L, k=k, activation=activation)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(drawn if name.startswith("W") else 0.2 * drawn)
        if activation == "jumprelu":
            model.log_threshold.sub_(0.5)
    model.normalise_decoder()
    return model
