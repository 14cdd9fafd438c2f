"""The settings of `sae classes`, and classes.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import typer

from sae.core.errors import UserError
from sae.core.files import FORMAT

POOLS = ("max", "mean", "sum", "cls")
RANKINGS = ("count", "mean", "lift")


@dataclass(frozen=True, kw_only=True)
class ClassConfig:
    """How latents are counted and ranked for a class."""

    threshold: Annotated[
        float, typer.Option(help="A token counts for a latent where its activation is above.")
    ] = 0.2
    pool: Annotated[
        str,
        typer.Option(help="An image's activation, of its tokens': max, mean, sum or cls."),
    ] = "max"
    by: Annotated[
        str,
        typer.Option(
            help="Latents are ranked by count (tokens of the class above the threshold), mean (of "
            "the class's images) or lift (that mean over the mean of all images)."
        ),
    ] = "count"
    top: Annotated[int, typer.Option(help="Latents listed for a class, at most.")] = 100
    max_classes: Annotated[
        float,
        typer.Option(
            help="A latent in the list of more than this share of the classes belongs to none: it "
            "is left out of all."
        ),
    ] = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < math.inf:
            raise UserError(f"the threshold is {self.threshold}; it must be at least 0")
        for name, known in (("pool", POOLS), ("by", RANKINGS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} {getattr(self, name)!r} is none of {', '.join(known)}")
        if self.top < 1:
            raise UserError(f"top is {self.top}; it must be at least 1")
        if not 0 < self.max_classes <= 1:
            raise UserError(f"max_classes is {self.max_classes}; it must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class ClassInfo(ClassConfig):
    """classes.json: what was counted, of what, with which settings."""

    format: int = FORMAT
    version: str
    store_identity: str
    sae_identity: str
    n_latents: int
    n_left_out: int
    """Latents that belong to no class, because they are in the list of too many."""
    tokens_per_image: int
    names: list[str]
    """The classes, in the order of the arrays' columns."""
    n_images: list[int]
    """Of each class."""
