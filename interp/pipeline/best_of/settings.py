"""What a user can set about the choice among several labels: each setting with default and help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from interp.pipeline.settings import ModelSettings
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
            "select stands; needs `interp collect --select`.",
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
