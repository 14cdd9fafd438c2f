"""A world's tokens behind the last block but one of the tiny CLIP, and an SAE on them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from sae.clip.model import Clip, load_clip
from sae.data.classes.config import ClassConfig
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from sae.steering.classes import find_class_latents
from tests.support.commands import Walk, sae

N_LATENTS, K = 64, 6


class Steering(NamedTuple):
    """Folders, opened; read-only."""

    store: EmbeddingStore
    sae: Path
    classes: Path
    clip: Clip
    model: SAE


@pytest.fixture(scope="session")
def steering(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Steering:
    """150 sketches at block 4, all tokens; an SAE whose latents point to some of the tokens."""
    folder = tmp_path_factory.mktemp("steering")
    source = ("--domain", f"sketch={walk.world / 'sketch'}", "--layer", 4, "--tokens", "all")
    store = folder / "store"
    assert sae("embed", *source, "--dtype", "float32", "--workers", 0, "--out", store) == 0
    opened = EmbeddingStore.open(store)
    x = torch.cat([batch.x for batch in opened.batches()]).flatten(0, 1)
    config = SAEConfig(d=x.shape[1], n_latents=N_LATENTS, k=K, clip="tiny", layer="4", tokens="all")
    model = SAE(config)
    with torch.no_grad():
        model.mean.copy_(x.mean(0))
        model.scale.copy_(x.std())
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:N_LATENTS]
        rows = F.normalize((x[some] - model.mean) / model.scale, dim=1)
        model.W_enc.copy_(rows)
        model.W_dec.copy_(rows)
    model.save(folder / "sae")
    classes = folder / "classes"
    find_class_latents(model, opened, classes, ClassConfig(top=10, by="mean"))
    return Steering(opened, folder / "sae", classes, load_clip("tiny", "cpu"), model.eval())
