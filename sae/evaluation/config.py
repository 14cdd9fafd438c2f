"""What is reported of an SAE: the options of `sae eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sae.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured beside reconstruction and sparsity."""

    against: Annotated[
        Path | None,
        typer.Option(help="Another SAE, e.g. of another seed: are the latents the same?"),
    ] = None
    k: Annotated[str, typer.Option(help="Other numbers of latents per token to try: 8,16,32.")] = ""
    plots: Annotated[
        bool, typer.Option("--plots", help="Also draw the figures, as PNG beside eval.json.")
    ] = False
    zeroshot: Annotated[
        bool, typer.Option(help="Also classify images with and without the SAE in the way.")
    ] = True
    templates: Annotated[
        int, typer.Option(help="1, or 80: also with the 80 templates of CLIP's authors.")
    ] = 1
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Also with a template of your own: 'a drawing of a {}'; of several, their mean."
        ),
    ] = None
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="First set the threshold of a BatchTopK on half of the held-out images, and save "
            "it; the other half is evaluated.",
        ),
    ] = False
    n_zeroshot: Annotated[int, typer.Option(help="Images per domain for that, at most.", min=1)] = (
        2000
    )

    def __post_init__(self) -> None:
        _ = self.ks
        if self.templates not in (1, 80):
            raise UserError(f"--templates is {self.templates}; it must be 1 or 80")

    @property
    def ks(self) -> list[int]:
        """`k` as numbers. Raises `UserError` where it is no list of these."""
        return read_whole_numbers("--k", self.k)


def read_whole_numbers(flag: str, text: str) -> list[int]:
    """ "8,16" -> [8, 16]; "" is none. Raises `UserError`, with `flag` in it, for other text."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if all(word.isdecimal() for word in words):
        return [int(word) for word in words]
    raise UserError(f"{flag} {text!r} is not a list of whole numbers such as 8,16,32")
