"""What a user can set about judging tasks and about checks of the judge: defaults and help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import typer

from interp.pipeline.settings import ModelSettings
from interp.records.nulls import FOIL_SHARE
from interp.records.tasks import DETECT, TASKS
from sae.core.errors import UserError
from sae.core.files import did_you_mean

KINDS = (DETECT, *TASKS)
_CHECKS = "Checks of a paid judge"


@dataclass(frozen=True, kw_only=True)
class JudgingSettings:
    """What the judge is asked to do, and how it is checked."""

    kind: Annotated[
        str, typer.Option(help=f"Judging tasks, a comma between: {', '.join(KINDS)}.")
    ] = DETECT
    alone_share: Annotated[
        float,
        typer.Option(
            help="Share of the images asked about once more alone: do neighbours change a grade?",
            min=0.0,
            max=1.0,
            rich_help_panel=_CHECKS,
        ),
    ] = 0.01
    retest_share: Annotated[
        float,
        typer.Option(
            help="Share of the questions asked once more in the reverse order.",
            min=0.0,
            max=1.0,
            rich_help_panel=_CHECKS,
        ),
    ] = 0.05
    canary_share: Annotated[
        float,
        typer.Option(
            help="Share of the questions asked with pictures that cannot be mistaken.",
            min=0.0,
            max=1.0,
            rich_help_panel=_CHECKS,
        ),
    ] = 0.01
    foil_share: Annotated[
        float,
        typer.Option(
            help="Share of the latents whose questions have foils graded too: labels of others.",
            min=0.0,
            max=1.0,
            rich_help_panel=_CHECKS,
        ),
    ] = FOIL_SHARE
    second_judge: Annotated[
        str,
        typer.Option(
            help="Another model that answers a share of the questions too.",
            show_default=False,
            rich_help_panel=_CHECKS,
        ),
    ] = ""
    second_share: Annotated[
        float,
        typer.Option(
            help="That share of the questions.", min=0.0, max=1.0, rich_help_panel=_CHECKS
        ),
    ] = 0.05
    second_price: Annotated[
        str,
        typer.Option(
            help="As --price, of the second judge.", show_default=False, rich_help_panel=_CHECKS
        ),
    ] = ""

    def __post_init__(self) -> None:
        _ = self.kinds

    def second_for(self, judge: ModelSettings) -> ModelSettings:
        """The second judge's settings: the judge's, but its own model and price.

        Raises `UserError` where it is the judge itself.
        """
        if self.second_judge == judge.model:
            raise UserError(f"--second-judge {judge.model} is the judge itself; name another")
        return dataclasses.replace(judge, model=self.second_judge, price=self.second_price)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Each once, `detect` first. Raises `UserError` for an unknown one."""
        asked = [word.strip() for word in self.kind.split(",") if word.strip()]
        for word in asked or [self.kind]:
            if word not in KINDS:
                hint = did_you_mean(word, list(KINDS))
                raise UserError(f"--kind {word!r} is not known{hint}; one of {', '.join(KINDS)}")
        return tuple(name for name in KINDS if name in asked)
