"""What is reported of an SAE: the options of `sae eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


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
    n_zeroshot: Annotated[int, typer.Option(help="Images per domain for that, at most.")] = 2000
