"""What is asked of a plan: every setting with its default and help, once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from sae.clip.config import SourceConfig
from sae.core.errors import UserError
from sae.training.config import TrainConfig

_POWERS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:e\+?(\d))?([KMGB]?)", re.IGNORECASE | re.ASCII)


def read_count(text: str | int) -> int:
    """ "1.28M", "50k", "2e6", "1,280,000" -> a whole number. Raises `UserError` for any other."""
    found = _NUMBER.fullmatch(re.sub(r"(?<=\d)[,_](?=\d)", "", str(text).strip()))
    if found is None or len(str(text)) > 30:
        raise UserError(f"{str(text)[:40]!r} is not a number such as 50000, 50k or 1.28M")
    value = Fraction(found[1]) * 10 ** int(found[2] or 0) * _POWERS[found[3].upper()]
    if value.denominator != 1 or value < 1:
        raise UserError(f"{text!r} is not a whole number above 0")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """A run that has not begun. What is left open is as `sae embed` and `sae train` have it."""

    images: Annotated[
        int, typer.Option(parser=read_count, metavar="N", help="How many: 50000, 50k, 1.28M.")
    ]
    clip: Annotated[
        str,
        typer.Option(help="As for sae embed; of open_clip's models the tag may be left out."),
    ] = SourceConfig.clip
    layer: Annotated[
        str,
        typer.Option(
            help="A block or projected; default: projected, of patches the last block.",
            show_default=False,
        ),
    ] = ""
    tokens: Annotated[str, typer.Option(help="cls, patch or all.")] = SourceConfig.tokens
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = SourceConfig.dtype
    n_latents: Annotated[
        int | None,
        typer.Option(
            parser=read_count, metavar="N", help="Rows of the dictionary; default: 8 x width."
        ),
    ] = None
    k: Annotated[int, typer.Option(help="Latents kept per token.", min=1)] = TrainConfig.k
    batch_size: Annotated[
        int, typer.Option(help="Tokens per step; 0: as for sae train.", min=0)
    ] = TrainConfig.batch_size
    epochs: Annotated[int, typer.Option(help="Passes; 0: as for sae train.", min=0)] = (
        TrainConfig.epochs
    )
    n_tokens: Annotated[
        int | None,
        typer.Option(
            parser=read_count, metavar="N", help="Budget in tokens, in place of epochs: 100M."
        ),
    ] = None
    holdout: Annotated[float, typer.Option(help="Share of images kept for sae eval.")] = (
        TrainConfig.holdout
    )
    gpus: Annotated[
        int, typer.Option(help="Devices like the one that is measured.", min=1, max=65536)
    ] = 1
    out: Annotated[
        Path,
        typer.Option(help="Where the store would lie: its disk is measured, and nothing stays."),
    ] = Path(".")
    seconds: Annotated[float, typer.Option(help="For all that is measured.", min=0.1, max=3600)] = (
        20.0
    )

    @property
    def source(self) -> SourceConfig:
        """The vectors of which a store would be."""
        layer = self.layer or ("projected" if self.tokens == "cls" else "-1")
        return SourceConfig(clip=self.clip, layer=layer, tokens=self.tokens, dtype=self.dtype)

    @property
    def training(self) -> TrainConfig:
        """How an SAE would be trained on it."""
        return TrainConfig(
            n_latents=self.n_latents or 0,
            k=self.k,
            batch_size=self.batch_size,
            epochs=self.epochs,
            n_tokens=self.n_tokens or 0,
            holdout=self.holdout,
        )
