"""A small CLIP, an SAE on its projected embedding, and an image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from sae.clip.model import Clip
from sae.model.sae import SAE, SAEConfig
from sae.steering.generate.config import GenerateConfig
from sae.steering.generate.run import Scene, look_at
from tests.support.sae.small_clip import write_images

N_LATENTS, LATENT = 16, 3


def make_sae(clip: Clip, rows: str = "raw", layer: str = "projected", d: int = 0) -> SAE:
    config = SAEConfig(d=d or clip.d_embed, n_latents=N_LATENTS, k=4, clip=clip.name)
    model = SAE(SAEConfig(**{**vars(config), "layer": layer, "tokens": "cls", "rows": rows}))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in (model.W_enc, model.W_dec, model.mean):
            weights.copy_(torch.randn(weights.shape, generator=draw))
        model.scale.fill_(1.7)
        model.normalise_decoder()
    return model.eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    [path] = write_images(tmp_path / "source", 1)
    return path


@pytest.fixture
def scene(clip: Clip, picture: Path) -> Scene:
    return look_at(make_sae(clip), clip, Image.open(picture).convert("RGB"))


def asked(pipeline: str = "pipeline", **more: object) -> GenerateConfig:
    return GenerateConfig(**{"latent": LATENT, "pipeline": pipeline, **more})  # type: ignore[arg-type]
