"""Which latents a token keeps: the activation rules, and the form in which activations leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sae.errors import UserError


class Codes(NamedTuple):
    """What the encoder keeps of each token; where fewer than `k` latents fire, the rest is 0."""

    acts: Tensor
    """(n, k), largest first, >= 0."""
    latents: Tensor
    """(n, k), int64 in [0, n_latents); all different within a row."""

    def dense(self, n_latents: int) -> Tensor:
        """The same activations as a (n, n_latents) matrix with zeros elsewhere."""
        dense = self.acts.new_zeros(len(self.acts), n_latents)
        return dense.scatter_add(1, self.latents, self.acts)  # a padding act of 0 adds nothing


@dataclass(frozen=True)
class TopK:
    """ReLU, then only the largest activations of each token (Gao et al. 2024)."""

    k: int = 32
    """Latents kept per token. Larger k reconstructs better and explains worse."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"k is {self.k}; at least one latent must be kept per token")

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents); gradients reach only what is kept and > 0."""
        # ReLU after the selection keeps the same set, and costs (n, k) instead of (n, n_latents).
        kept = torch.topk(pre, self.k, dim=1, sorted=True)
        return Codes(kept.values.relu(), kept.indices)
