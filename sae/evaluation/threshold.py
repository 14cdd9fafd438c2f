"""A BatchTopK and held-out images -> the threshold that lets k latents per token pass on those."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.core.errors import UserError
from sae.data.split import holdout_rows
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE

N_TOKENS = 16_384
"""Tokens that are enough: the threshold is then known far better than L0 need be."""
TOKENS_AT_ONCE = 1024


def calibrate(model: SAE, store: EmbeddingStore, device: torch.device) -> int:
    """Set the threshold on half of the held-out images, and leave the other half to evaluation.

    Training learns it from images that it also learns by heart: on others more passes. Returns the
    number of images; 0, and nothing is changed, where one of the halves would be empty. Raises
    `UserError` for another rule than BatchTopK.
    """
    require_batch_topk(model.config.activation)
    middle = model.config.holdout / 2
    rows = np.flatnonzero(holdout_rows(store.images, middle))
    if not len(rows) or not holdout_rows(store.images, model.config.holdout, middle).any():
        return 0
    with torch.no_grad():
        model.threshold.copy_(_threshold(model.to(device).eval(), store, rows))
    model.config = replace(model.config, calibration=middle)
    return len(rows)


def require_batch_topk(activation: str) -> None:
    """Raise `UserError` for another rule: its threshold is no mean over held-out images."""
    if activation != "batch_topk":
        raise UserError(f"--calibrate is for a BatchTopK; this SAE has the rule {activation!r}")


def find_threshold(model: SAE, parts: list[Tensor]) -> Tensor:
    """() The activation that k latents per token of raw tokens (n, d) reach on average."""
    n_kept = model.config.k * sum(map(len, parts))
    largest = torch.empty(0)
    for part in parts:
        for x in torch.split(part, TOKENS_AT_ONCE):
            acts = model.encode_pre(x.to(model.W_enc.device)).relu().flatten().cpu()
            acts = torch.cat([largest, acts[acts > 0]])
            largest = acts.topk(min(n_kept, len(acts)), sorted=False).values
    return largest.min() if len(largest) == n_kept else torch.zeros(())


def _threshold(model: SAE, store: EmbeddingStore, rows: NDArray[np.int64]) -> Tensor:
    n_images = max(1, N_TOKENS // store.info.tokens_per_image)
    chosen = np.random.default_rng(0).permutation(len(rows))[:n_images]
    at_once = max(1, TOKENS_AT_ONCE // store.info.tokens_per_image)
    batches = store.batches(at_once, np.sort(rows[chosen]))
    return find_threshold(model, [batch.x.flatten(0, 1).float() for batch in batches])
