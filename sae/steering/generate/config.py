"""What can be set of `sae steer generate`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import typer

from sae.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The edit, the pictures of it, and what the SAE or the pipeline does not say of itself."""

    latent: Annotated[int, typer.Option(help="The latent whose activation is changed.", min=0)]
    pipeline: Annotated[
        str,
        typer.Option(
            help="Kandinsky 2.2's decoder or Stable unCLIP, in diffusers' form: a folder, or a "
            "name of the hub such as kandinsky-community/kandinsky-2-2-decoder."
        ),
    ]
    strength: Annotated[
        str,
        typer.Option(help="What is added to the activation; 0 is the control and always drawn."),
    ] = "-4,0,4"
    seeds: Annotated[int, typer.Option(help="Pictures of each strength.", min=1)] = 3
    label: Annotated[
        str, typer.Option(help="What CLIP compares the pictures with, in place of --labels.")
    ] = ""
    steps: Annotated[int, typer.Option(help="Of denoising; 0: the pipeline's own.", min=0)] = 0
    guidance: Annotated[
        float, typer.Option(help="Scale of guidance; 0: the pipeline's own.", min=0)
    ] = 0.0
    size: Annotated[
        int, typer.Option(help="Pixels a side, a multiple of 8; 0: the pipeline's own.", min=0)
    ] = 0
    encoder: Annotated[
        str,
        typer.Option(
            help="CLIP whose embeddings a pipeline without an image encoder takes. Default: "
            "ViT-bigG-14/laion2b_s39b_b160k, Kandinsky 2.2's."
        ),
    ] = ""
    clip: Annotated[str, typer.Option(help="Where the SAE does not say which CLIP it is of.")] = ""

    def __post_init__(self) -> None:
        if self.size % 8:
            raise UserError(f"--size {self.size} is no multiple of 8, as pipelines need it")

    @property
    def strengths(self) -> list[float]:
        """Each once, ascending, with 0 among them. Raises `UserError` for what is no number."""
        try:
            found = {0.0, *(float(word) for word in self.strength.split(",") if word.strip())}
        except ValueError:
            found = {math.nan}
        if not all(math.isfinite(value) for value in found):
            raise UserError(f"--strength {self.strength!r} is not a list of numbers such as -4,0,4")
        return sorted(found)
