"""A checkpoint of MaPLe with random prompts, in the layout in which dassl leaves one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def maple_weights(
    n_ctx: int,
    depth: int,
    d_text: int,
    d_image: int,
    seed: int = 0,
    behind: Tensor | None = None,
) -> dict[str, Tensor]:
    """What its prompt learner holds; with what stood `behind` the prompts, all of the buffers."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    learner = {
        "ctx": random(n_ctx, d_text),
        "proj.weight": 0.2 * random(d_image, d_text),
        "proj.bias": random(d_image),
    }
    for deep in range(depth - 1):
        layer = f"compound_prompt_projections.{deep}"
        learner[f"compound_prompts_text.{deep}"] = random(n_ctx, d_text)
        learner[f"{layer}.weight"] = 0.2 * random(d_image, d_text)
        learner[f"{layer}.bias"] = random(d_image)
    if behind is not None:
        learner |= {"token_prefix": random(len(behind), 1, d_text), "token_suffix": behind}
    return {f"prompt_learner.{name}": value for name, value in learner.items()}


def write_maple(path: Path, weights: dict[str, Tensor], **around: Any) -> Path:
    """With the state of SGD and its schedule, as dassl has them beside the weights."""
    learned = nn.Parameter(torch.zeros(2, 3))
    optimiser = torch.optim.SGD([learned], lr=0.0035, momentum=0.9)
    learned.sum().backward()
    optimiser.step()
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
    whole = {
        "state_dict": weights,
        "epoch": 5,
        "optimizer": optimiser.state_dict(),
        "scheduler": {"last_epoch": 5, "successor": cosine},
        "val_result": None,
        **around,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(whole, path)
    return path
