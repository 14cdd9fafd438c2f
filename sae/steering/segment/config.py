"""What can be set of `sae steer segment`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import typer

from sae.core.errors import UserError


@dataclass(frozen=True)
class SegmentConfig:
    """How latents are chosen and set, and what is reported on."""

    value: Annotated[
        float, typer.Option(help="Set a class's latent to so many of its maxima.")
    ] = -2.0
    max_frequency: Annotated[
        float,
        typer.Option(help="Only latents that are active on a smaller share of the patches."),
    ] = 0.01
    holdout: Annotated[
        float,
        typer.Option(help="Share of images, by content hash, that the figures are reported on."),
    ] = 0.1
    head_patches: Annotated[
        int, typer.Option(min=1, help="Patches that the head is fitted on, drawn evenly, at most.")
    ] = 40_000
    c: Annotated[
        float, typer.Option(help="Inverse L2 penalty of the head, as in scikit-learn.")
    ] = 0.01
    seed: Annotated[int, typer.Option(min=0, help="Of the patches and the baselines.")] = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise UserError(f"--value {self.value} must be a number")
        if not 0 < self.max_frequency <= 1:
            raise UserError(f"--max-frequency {self.max_frequency} must be above 0, at most 1")
        if not 0 < self.holdout < 1:
            raise UserError(f"--holdout {self.holdout} must be between 0 and 1")
        if not 0 < self.c < math.inf:
            raise UserError(f"--c {self.c} must be above 0")
