"""What a store says of an SAE that claims to be for it: how much of its variance is rebuilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.data.store_format import torch_dtype
from sae.evaluation.reconstruction import FitSums
from sae.model.sae import SAE

N_SAMPLE = 16_384
"""Tokens from which mean and scale are estimated: the mean is then within 1% of a deviation."""
N_MEASURED = 4_096
"""Tokens on which the FVU is measured: 98,304 latents then take seconds on one core."""
REBUILT_AT_ONCE = 64
"""A ReLU's latents may all be active, and each then costs several times its own size."""


def sample(store: Path | str, d: int, n: int = N_SAMPLE) -> Tensor:
    """Up to `n` tokens (n, d), float32, drawn from the whole of a store; the same each time.

    Raises `UserError` when the store's embeddings have another width than `d`.
    """
    opened = EmbeddingStore.open(store)
    if opened.info.d != d:
        raise UserError(
            f"the SAE is for embeddings of width {d}, but {store} has {opened.info.d}; "
            "name the store of the layer that it was trained on"
        )
    n_tokens = opened.info.n_images * opened.info.tokens_per_image
    if n_tokens == 0:
        raise UserError(f"{store} holds no embeddings")
    # By chance, not evenly: an even step can hit the same place of every image.
    chosen = np.random.default_rng(0).choice(n_tokens, min(n, n_tokens), replace=False)
    x = torch.empty(len(chosen), d, dtype=torch_dtype(opened.info.dtype))
    opened.read_tokens(np.sort(chosen), x)
    # The store's order is that of its folders: any first part of this is of all of them.
    return x[torch.from_numpy(np.argsort(chosen).argsort())].float()


@torch.no_grad()
def fvu(model: SAE, x: Tensor) -> float:
    """Fraction of variance unexplained of raw tokens (n, d), at most `N_MEASURED` of them.

    0 is perfect, 1 no better than their mean; NaN where all tokens are equal.
    """
    sums = FitSums(model)
    for part in torch.split(x[:N_MEASURED], REBUILT_AT_ONCE):
        sums.update(part, model.encode(part))
    return sums.fit().fvu
