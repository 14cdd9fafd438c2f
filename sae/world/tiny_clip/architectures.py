"""The image towers of the tiny CLIPs, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sae.world.tiny_clip.train_data import IMAGE_SIZE, N_PATCHES


@dataclass(frozen=True)
class Architecture:
    """An image tower of open_clip, and what is fastest for it on one core."""

    vision: dict[str, Any]
    last_map: str
    """The module of `visual` whose output the patch head reads."""
    d_map: int
    map_side: int
    lr: float
    """AdamW: convolutions, embeddings, projections, norms, biases, heads."""
    bfloat16: bool


ARCHITECTURES = {
    "vit": Architecture(
        vision={
            "image_size": IMAGE_SIZE,
            "layers": 6,
            "width": 128,
            "head_width": 32,
            "patch_size": 8,
        },
        last_map="transformer",
        d_map=128,
        map_side=N_PATCHES,
        lr=1e-3,
        bfloat16=True,
    ),
    # Three convolutions, four stages of one bottleneck each, an attention pool.
    "conv": Architecture(
        vision={"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 12, "head_width": 32},
        last_map="layer4",
        d_map=384,
        map_side=2,
        lr=2e-3,
        bfloat16=False,
    ),
}
