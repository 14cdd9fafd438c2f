"""The settings of `sae steer classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from sae.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SteerConfig:
    """What is done to the latents of a class, and on which images it is looked at."""

    error: Annotated[
        str,
        typer.Option(
            help="kept: tokens change by what the latents' change does, no more. dropped: they "
            "become the reconstruction, as PatchSAE has it."
        ),
    ] = "kept"
    class_from: Annotated[
        str,
        typer.Option(
            help="Whose latents: true (of each class in turn, on its own images and on others), or "
            "predicted (of the class that the network names without the SAE, for each image)."
        ),
    ] = "true"
    n_images: Annotated[int, typer.Option(help="Images of a class, at most; 0: all.")] = 50
    n_others: Annotated[
        int, typer.Option(help="Images of other classes looked at for a class, at most; 0: all.")
    ] = 100
    control: Annotated[
        bool,
        typer.Option(
            help="Also with random other latents: as many, as active on the images of the class."
        ),
    ] = True
    templates: Annotated[
        int, typer.Option(help="Texts of a class: 1 (a photo of a ...), or CLIP's authors' 80.")
    ] = 1
    seed: Annotated[int, typer.Option(help="Of the random latents.")] = 0

    def __post_init__(self) -> None:
        for name, known in (("error", ("kept", "dropped")), ("class_from", ("true", "predicted"))):
            if getattr(self, name) not in known:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} {getattr(self, name)!r} is none of {', '.join(known)}")
        if self.templates not in (1, 80):
            raise UserError(f"--templates {self.templates} is neither 1 nor 80")
        for name in ("n_images", "n_others", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 0")
