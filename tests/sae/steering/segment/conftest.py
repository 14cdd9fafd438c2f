"""Squares of two colours on noise, their masks, and an SAE on the patches behind block 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from sae.clip.model import Clip
from sae.data.sources.folders import find_images
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE
from tests.support.sae.embedded import Images, run
from tests.support.sae.engine_pairs import random_model

N, HEIGHT, WIDTH = 36, 40, 60
COLOURS = {1: (230, 20, 20), 2: (20, 20, 230)}


class Painted(NamedTuple):
    images: Path
    masks: Path
    store: EmbeddingStore
    sae: Path
    model: SAE


def paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and mask: one square of each colour, and a stripe that counts nowhere."""
    pixels = rng.integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, colour in COLOURS.items():
        y, x = rng.integers(0, HEIGHT - 18), rng.integers(0, WIDTH // 2 - 18)
        x += WIDTH // 2 * (number - 1)
        pixels[y : y + 18, x : x + 18], mask[y : y + 18, x : x + 18] = colour, number
    mask[-3:] = 255
    return pixels, mask


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> Painted:
    """Read-only: copy what you change."""
    folder, rng = tmp_path_factory.mktemp("painted"), np.random.default_rng(0)
    for number in range(N):
        pixels, mask = paint(rng)
        for kind, array in (("images", pixels), ("masks/photo", mask)):
            path = folder / kind / "squares" / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    roots = {"photo": folder / "images"}
    images = Images(roots, find_images(roots))
    run(images, folder / "store", clip, "1", "patch", dtype="float32")
    store = EmbeddingStore.open(folder / "store")
    model = random_model(64, 40, 6).eval()
    x = torch.cat([batch.x.flatten(0, 1) for batch in store.batches()])
    with torch.no_grad():
        model.mean.copy_(x.mean(0))
        model.scale.copy_((x - x.mean(0)).square().mean().sqrt())
    model.config = replace(model.config, clip=clip.name, layer="1", tokens="patch")
    model.save(folder / "sae")
    return Painted(folder / "images", folder / "masks", store, folder / "sae", model)
