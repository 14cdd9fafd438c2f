"""The options of `interp run`: each with its default and its help, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from interp.pipeline.best_of.settings import BestOfSettings
from interp.pipeline.settings import ModelSettings
from interp.pipeline.workflow.names import AUTO, ORDER
from sae.clip.config import RegistryOption
from sae.core.errors import UserError
from sae.core.files import did_you_mean
from sae.training.config import learning_rate

_IMAGES, _SAE, _STEPS = "Images", "The SAE", "Steps"


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Images by domain, and the vectors that a network makes of them."""

    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR, or archives or a list as for sae embed; more may follow: sketch=DIR "
            "photo=DIR.",
            rich_help_panel=_IMAGES,
            show_default=False,
        ),
    ] = None
    clip: Annotated[
        str,
        typer.Option(
            help="CLIP that embeds, as for sae embed: ViT-B-32/openai; tiny knows the built-in "
            "world alone. Default: that of --sae, as its files or the registry tell.",
            rich_help_panel=_IMAGES,
            show_default=False,
        ),
    ] = ""
    layer: Annotated[
        str,
        typer.Option(
            help="A block or projected; default: that of --sae, or projected.",
            rich_help_panel=_IMAGES,
            show_default=False,
        ),
    ] = ""
    tokens: Annotated[
        str,
        typer.Option(
            help="cls, patch or all; default: those of --sae, or cls.",
            rich_help_panel=_IMAGES,
            show_default=False,
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
    """The SAE: one that is there, or how large a new one is."""

    sae: Annotated[
        str,
        typer.Option(
            help="Take this SAE in place of training one: a folder, any file that sae import "
            "reads, owner/name or hf:owner/name on the hub.",
            metavar="PATH_OR_HUB_ID",
            rich_help_panel=_SAE,
            show_default=False,
        ),
    ] = ""
    registry: RegistryOption = None
    n_latents: Annotated[
        int,
        typer.Option(
            help="Rows of the dictionary; 0: by the number of images and their width.",
            min=0,
            rich_help_panel=_SAE,
        ),
    ] = 0
    k: Annotated[
        int,
        typer.Option(
            help="Latents kept per token; 0: likewise, and by the latents.",
            min=0,
            rich_help_panel=_SAE,
        ),
    ] = 0
    epochs: Annotated[
        int,
        typer.Option(
            help="Passes; 0: 10, or as many (to 500) as make 500,000 tokens.",
            min=0,
            rich_help_panel=_SAE,
        ),
    ] = 0
    lr: Annotated[
        float,
        typer.Option(
            parser=learning_rate,
            metavar="RATE|auto",
            help="Peak learning rate of Adam; auto tries some for a short while first.",
            rich_help_panel=_SAE,
        ),
    ] = AUTO  # type: ignore[assignment]  # parsed like what is typed


@dataclass(frozen=True, kw_only=True)
class AskSettings(BestOfSettings, ModelSettings):
    """Who names latents, how often, and who grades images."""

    model: Annotated[
        str,
        typer.Option(
            help="Who names latents: local (CLIP, no key), local:linear, or a vision model's id.",
            show_default=False,
        ),
    ]
    max_cost: Annotated[
        float | None,
        typer.Option(
            help="USD that all questions in this folder may cost together, however often the run "
            "is resumed.",
            min=0.0,
            rich_help_panel="Money",
            show_default=False,
        ),
    ] = None
    judge: Annotated[
        str,
        typer.Option(
            help="Who grades images; better of another family than --model. Default: --model.",
            show_default=False,
        ),
    ] = ""
    judge_price: Annotated[
        str,
        typer.Option(
            help="As --price, of another --judge.", rich_help_panel="Money", show_default=False
        ),
    ] = ""
    judge_clip: Annotated[
        str,
        typer.Option(
            help="CLIP of a local judge; better another than that of the SAE. Default: as for "
            "interp score.",
            rich_help_panel="With --model local",
            show_default=False,
        ),
    ] = ""
    clip: str = ""
    """Of the namer: the store's."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Which steps are made, and how far."""

    causal: Annotated[
        bool | None,
        typer.Option(
            help="Edit each latent in its CLIP (interp causal); default: where the layer is "
            "projected, so that no block has to be computed again.",
            rich_help_panel=_STEPS,
            show_default=False,
        ),
    ] = None
    disambiguate: Annotated[
        bool,
        typer.Option(
            "--disambiguate",
            help="Ask of each latent whose label others have too, once, what sets it apart.",
            rich_help_panel=_STEPS,
        ),
    ] = False
    transfer: Annotated[
        str,
        typer.Option(
            help="Two domains (a,b) whose labels are tested on each other (interp transfer), or "
            "none; auto: those of a run with two, where it is free.",
            rich_help_panel=_STEPS,
        ),
    ] = AUTO
    allow_misfit: Annotated[
        bool,
        typer.Option(
            "--allow-misfit",
            help="Go on with an SAE of --sae that rebuilds these images worse than their mean "
            "does.",
            rich_help_panel=_STEPS,
        ),
    ] = False
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Ask again where there was no usable answer.",
            rich_help_panel=_STEPS,
        ),
    ] = False
    max_failures: Annotated[
        float,
        typer.Option(
            help="Share of questions without a usable answer above which the exit code is 4.",
            min=0.0,
            max=1.0,
            rich_help_panel=_STEPS,
        ),
    ] = 0.02
    from_step: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Throw away what this step and all later ones have made, but no answer that was "
            f"paid, and make it anew: {', '.join(ORDER)}.",
            rich_help_panel=_STEPS,
            show_default=False,
        ),
    ] = ""
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Say what each step would do and cost; send and write nothing.",
            rich_help_panel="Money",
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.from_step and self.from_step not in ORDER:
            near = did_you_mean(self.from_step, ORDER)
            raise UserError(f"--from {self.from_step!r} is none of {', '.join(ORDER)}{near}")
