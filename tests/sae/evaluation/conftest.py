"""A small store, and an SAE on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from tests.support.sae.evaluated import D, L, N, T
from tests.support.sae.stores import write_store


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    """60 images x 3 tokens x 5 dimensions, two domains in turn, far from 0."""
    x = 3 + 0.1 * torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))
    return write_store(tmp_path / "store", x, domains=["sketch", "photo"] * (N // 2))


@pytest.fixture
def model(store: EmbeddingStore) -> SAE:
    generator = torch.Generator().manual_seed(1)
    model = SAE(SAEConfig(d=D, n_latents=L, k=2, holdout=0.3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        # Latents 0 and 1 never fire, 2 always, 3 weakly wherever the others leave a place.
        model.b_enc[:4] = torch.tensor([-50.0, -50.0, 3.0, 5e-4])
        model.b_enc[4:] -= 1
        model.W_enc[3] = 0
        model.mean.fill_(3.0)
        model.scale.fill_(0.1)
    return model
