"""What can be set of several labels a latent, and of equal ones: each with default and help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from interp.pipeline.settings import ModelSettings, Work
from interp.records.family import LINEAR, LOCAL
from sae.core.errors import UserError

_PANEL = "Choice among labels"


@dataclass(frozen=True, kw_only=True)
class BestOfSettings:
    """How many labels are made of a latent, and who grades images to choose among them."""

    best_of: Annotated[
        int,
        typer.Option(
            help="Labels of each latent, of which the one that does best on images of the side "
            "select stands, which `interp collect --select` keeps (interp run by itself).",
            min=1,
            rich_help_panel=_PANEL,
        ),
    ] = 1
    select_judge: Annotated[
        str,
        typer.Option(
            help="Who grades those images: local (free), or a vision model's id.",
            rich_help_panel=_PANEL,
        ),
    ] = LOCAL
    select_clip: Annotated[
        str,
        typer.Option(
            help="CLIP that grades them with --select-judge local; better another than the SAE's. "
            "Default: as `interp score --judge-clip`.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = ""
    select_price: Annotated[
        str,
        typer.Option(
            help="As --price, of another --select-judge.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = ""

    def judge_for(self, explainer: ModelSettings) -> ModelSettings:
        """The judge's settings: the explainer's server and way of asking, its own model.

        Raises `UserError` where one of both is the linear explanation.
        """
        if LINEAR in (explainer.model, self.select_judge):
            raise UserError(
                f"--best-of chooses among names: {LINEAR} fits one explanation and does not "
                f"judge; take --model {LOCAL} or a vision model"
            )
        is_same = self.select_judge == explainer.model
        return dataclasses.replace(
            explainer,
            model=self.select_judge,
            price=explainer.price if is_same else self.select_price,
            clip=self.select_clip,
        )

    def recorded(self) -> dict[str, Any]:
        """What run.json keeps beside the explainer's and the judge's settings."""
        return {"best_of": self.best_of, "select_judge": self.select_judge}


@dataclass(frozen=True)
class NamingSettings:
    """How latents are named: one label, or the best of several; and what is done of equal ones."""

    explainer: ModelSettings
    best_of: BestOfSettings
    disambiguate: bool
    work: Work

    @property
    def is_choice(self) -> bool:
        """Whether several labels of each latent are made, of which one stands."""
        return self.best_of.best_of > 1

    @property
    def is_paid(self) -> bool:
        """Whether anything is asked of a model elsewhere."""
        paid = [self.explainer]
        paid += [self.best_of.judge_for(self.explainer)] if self.is_choice else []
        return not all(one.is_local for one in paid)

    @property
    def what(self) -> str:
        """In words."""
        said = "name latents"
        said += f", the best of {self.best_of.best_of} names each" if self.is_choice else ""
        return said + (", tell equal names apart" if self.disambiguate else "")


def require_apart(explainer: ModelSettings) -> None:
    """Raise `UserError` where the explainer cannot tell latents with one label apart."""
    if explainer.is_linear:
        raise UserError(f"--model {explainer.model} tells no labels apart; {LOCAL} does")
