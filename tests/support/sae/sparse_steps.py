"""An untrained SAE and batches for the sparse engine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.model.sae import SAE, SAEConfig

D, N_LATENTS, K, N = 61, 203, 7, 50


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def untrained(d: int = D, n_latents: int = N_LATENTS, k: int = K, activation: str = "topk") -> SAE:
    model = SAE(SAEConfig(d=d, n_latents=n_latents, k=k, activation=activation))
    with torch.no_grad():
        model.W_dec.copy_(F.normalize(random(n_latents, d, seed=1), dim=1))
        model.W_enc.copy_(model.W_dec)
        model.b_enc.copy_(0.1 * random(n_latents, seed=2))
        model.b_dec.copy_(0.1 * random(d, seed=3))
    return model
