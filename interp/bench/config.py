"""What `interp bench` measures and with whom: each setting with its default and help, once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import typer

from interp.bench.kinds import KINDS
from interp.pipeline.settings import ModelSettings
from interp.records.family import LINEAR, LOCAL, is_linear
from interp.records.types import AnsweredBy
from sae.core.errors import UserError
from sae.core.files import FORMAT, did_you_mean, sha256_hex

ORACLE = "oracle"
PARTS = ("constructed", "trained")
TIERS = ("easy", "hard")
"""Those of `sae.world`, which this file must not wait for."""
N_LATENTS = {
    **{"pure": 40, "noisy": 20, "even": 30, "uneven": 20, "absorbed": 20, "domain": 30},
    **{"noise": 20, "shuffled": 20, "random": 20},
}
"""Constructed latents of each kind."""


@dataclass(frozen=True)
class Oracle:
    """`oracle:HIT:ALARM`, by default .9 and .1.

    The labeler names what a latent was made of with the chance HIT, else another concept; where
    nothing was planted it says so but for the share ALARM. The judge says yes to this share of the
    images of which the label is true, and of the others.
    """

    hit: float = 0.9
    alarm: float = 0.1

    @classmethod
    def parse(cls, word: str) -> Oracle | None:
        """None where it is no oracle. Raises `UserError` for rates out of [0, 1]."""
        name, *rates = word.split(":")
        if name != ORACLE:
            return None
        try:
            made = cls(*map(float, rates))
        except (TypeError, ValueError):
            raise UserError(f"{word!r} is no oracle; write oracle or oracle:HIT:ALARM") from None
        if not (0 <= made.hit <= 1 and 0 <= made.alarm <= 1):
            raise UserError(f"{word!r}: rates lie between 0 and 1")
        return made

    @property
    def by(self) -> AnsweredBy:
        name = f"{ORACLE}:{self.hit:g}:{self.alarm:g}"
        return AnsweredBy(name, sha256_hex(name.encode()))


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured. A folder holds the bench of one such setting."""

    tier: Annotated[str, typer.Option(help="The world: easy or hard.")] = "easy"
    n_images: Annotated[int, typer.Option(help="Drawings.", min=200)] = 4000
    seed: Annotated[int, typer.Option(help="Of the world and of the latents.")] = 0
    kinds: Annotated[
        str,
        typer.Option(
            help="Constructed latents of a kind, in place of the usual numbers: pure=40,even=30; "
            f"kinds are {', '.join(KINDS)}.",
            show_default=False,
        ),
    ] = ""
    n_trained: Annotated[
        int,
        typer.Option(
            help="Also so many live latents of an SAE trained on the world (128 latents; hard "
            "tier: 1,024); 0: none.",
            min=0,
        ),
    ] = 128

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise UserError(f"--tier {self.tier!r} is not known; choose one of: {', '.join(TIERS)}")
        _ = self.n_of_kind

    @property
    def n_of_kind(self) -> dict[str, int]:
        """Constructed latents of each kind. Raises `UserError` for what is no list of these."""
        if not self.kinds:
            return dict(N_LATENTS)
        chosen: dict[str, int] = {}
        for word in self.kinds.split(","):
            kind, _, count = (part.strip() for part in word.partition("="))
            if kind not in KINDS or not count.isdecimal():
                hint = did_you_mean(kind, KINDS)
                raise UserError(f"--kinds: {word!r} is no KIND=NUMBER such as pure=40{hint}")
            chosen[kind] = int(count)
        return chosen


@dataclass(frozen=True, kw_only=True)
class BenchSettings(ModelSettings):
    """How models are asked; who they are stands in --models and --judges."""

    model: str = LOCAL
    max_cost: Annotated[
        float | None,
        typer.Option(
            help="USD that the bench in this folder may cost in all, however often it is resumed.",
            min=0.0,
            rich_help_panel="Money",
            show_default=False,
        ),
    ] = None
    clip: str = ""

    def of(self, word: str, tier: str) -> ModelSettings:
        """The settings of one of --models or --judges: `local`, `local:CLIP`, an oracle, a model;
        of --models alone `local:linear` and `local:linear:CLIP`.

        An oracle's are those of `local`, whose place it takes.
        """
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept["vocabulary"] = "hard" if tier == "hard" else "world"
        if Oracle.parse(word) is not None:
            return ModelSettings(**{**kept, "model": LOCAL})
        made = ModelSettings(**{**kept, "model": word})
        for name in (LINEAR, LOCAL):
            clip = word.removeprefix(f"{name}:")
            if clip != word and not made.is_local:
                return ModelSettings(**{**kept, "model": name, "clip": clip})
        return made


@dataclass(frozen=True, kw_only=True)
class BenchInfo(BenchConfig):
    """bench.json."""

    format: int = FORMAT


def names_in(option: str, text: str) -> list[str]:
    """The models of a list. Raises `UserError` for none, and for an oracle that is none."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise UserError(f"{option} names no model; local needs no key")
    for word in words:
        Oracle.parse(word)
        if option == "--judges" and is_linear(word):
            raise UserError(f"--judges {word} explains and does not judge; judge with {LOCAL}")
    return words
