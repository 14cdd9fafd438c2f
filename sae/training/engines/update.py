"""Gradients -> new parameters: the settings of Adam and of the decoder's rows, with their help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import typer

from sae.training.engines.interface import BETAS, EPS

DECODERS = ("unit", "at_use", "frozen")
OF_OTHERS = "Training as other labs do (see --recipe)"
"""Panel of the settings that are there to train as others did."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """How a step moves the parameters by their gradients."""

    decoder: Annotated[
        str,
        typer.Option(
            help="Decoder rows: unit (brought back to unit length after each step), at_use "
            "(brought to it at each use; the rows behind them may grow), frozen (stay as they "
            "started).",
            rich_help_panel=OF_OTHERS,
        ),
    ] = "unit"
    grad_clip: Annotated[
        float,
        typer.Option(
            help="Norm of all gradients together, at most; 0: no bound.", rich_help_panel=OF_OTHERS
        ),
    ] = 0.0
    weight_decay: Annotated[
        float,
        typer.Option(help="AdamW's: share of lr taken off.", rich_help_panel=OF_OTHERS),
    ] = 0.0
    beta1: Annotated[
        float, typer.Option(help="Adam's memory of gradients.", rich_help_panel=OF_OTHERS)
    ] = BETAS[0]
    beta2: Annotated[
        float, typer.Option(help="Adam's memory of their squares.", rich_help_panel=OF_OTHERS)
    ] = BETAS[1]
    eps: Annotated[
        float,
        typer.Option(
            help="Added to Adam's root mean square; torch's own default is 1e-8.",
            rich_help_panel=OF_OTHERS,
        ),
    ] = EPS

    def changed(self, *names: str) -> str:
        """The first of the settings, or of those named, that is not the default; "" for none."""
        for field in fields(Update):
            wanted = not names or field.name in names
            if wanted and getattr(self, field.name) != field.default:
                return field.name
        return ""
