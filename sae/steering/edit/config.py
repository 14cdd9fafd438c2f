"""What can be set of `sae steer edit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sae.data.tokens import tokens_named


@dataclass(frozen=True)
class EditConfig:
    """The edits, what is asked before and after them, and what the SAE does not say of itself."""

    latent: Annotated[
        list[str] | None,
        typer.Option(
            help="LATENT=set:2xmax (twice its maximum), =set:1.5, =add:1, =add:1xmax or "
            "=multiply:0; once for each latent.",
            show_default=False,
        ),
    ] = None
    where: Annotated[
        str,
        typer.Option(
            help="all tokens that the SAE reads, peak (each latent's strongest patch), cls, or "
            "patches as column,row from 0: 3,4;3,5."
        ),
    ] = "all"
    store: Annotated[
        Path | None,
        typer.Option(
            help="EmbeddingStore of the SAE: gives the maxima, and its classes as names for "
            "zero-shot.",
            show_default=False,
        ),
    ] = None
    probe: Annotated[
        Path | None,
        typer.Option(
            help="Also ask this head: a folder of `sae probe`, or saev's model.pt.",
            show_default=False,
        ),
    ] = None
    names: Annotated[
        str, typer.Option(help="Classes for zero-shot, in place of the store's: cat,dog,ice cream.")
    ] = ""
    template: Annotated[
        list[str] | None,
        typer.Option(help="For zero-shot; may be repeated. Default: a photo of a {}."),
    ] = None
    clip: Annotated[str, typer.Option(help="Where the SAE does not say which CLIP it is of.")] = ""
    layer: Annotated[str, typer.Option(help="The same for its layer.")] = ""
    tokens: Annotated[str, typer.Option(help="The same for its tokens: cls, patch, all.")] = ""

    def __post_init__(self) -> None:
        if self.tokens:
            object.__setattr__(self, "tokens", tokens_named(self.tokens))

    @property
    def classes(self) -> list[str]:
        """The names, one by one."""
        return [name.strip() for name in self.names.split(",") if name.strip()]
