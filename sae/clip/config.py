"""Which images become which vectors of which model: the options, once for all commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from sae.core.errors import UserError
from sae.data.tokens import Tokens, tokens_named


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Images by domain, and the vectors that a network makes of them."""

    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR; more may follow: sketch=DIR photo=DIR. Also NAME=a.tar, "
            "NAME=shards/{000..012}.tar, a parquet table of images, a CSV list with a column path, "
            "or a data set of the hub, NAME=hf:owner/name:split."
        ),
    ] = None
    clip: Annotated[
        str,
        typer.Option(
            help="tiny, tiny-conv (built in), MODEL/PRETRAINED of open_clip (ViT-B-32/openai), "
            "MODEL/random, MODEL/file:weights.pt, hf-hub:org/name, local-dir:path; behind any of "
            "them +maple:checkpoint puts MaPLe's prompts on it."
        ),
    ] = "tiny"
    layer: Annotated[
        str,
        typer.Option(
            help="Transformer block (from 0; -1 is the last), or projected. Of embed several in "
            "one pass: 6,10,projected makes layer-6, layer-10 and projected in OUT."
        ),
    ] = "projected"
    tokens: Annotated[
        str,
        typer.Option(
            help="Of a block: cls, patch (saev: content) or all; projected is one vector an image."
        ),
    ] = "cls"
    normalise: Annotated[
        bool,
        typer.Option("--normalise", help="Bring each embedding to length 1; projected only."),
    ] = False
    dtype: Annotated[str, typer.Option(help="What embeddings are kept as: float16 or float32.")] = (
        "float16"
    )
    workers: Annotated[
        int, typer.Option(help="Decoding processes; -1: up to 8, 0: none.", min=-1)
    ] = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tokens_named(self.tokens))
        if self.dtype not in ("float16", "float32"):
            raise UserError(f"--dtype {self.dtype!r} is none of float16, float32")

    @property
    def checked_tokens(self) -> Tokens:
        """`tokens`, which is known to be one of the three."""
        return cast("Tokens", self.tokens)

    @property
    def n_workers(self) -> int | None:
        """Decoding processes; None: as many as there are cores."""
        return None if self.workers < 0 else self.workers


RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="FILE",
        help="A TOML file that tells where SAEs were trained, asked before the one that comes with "
        "the program. Default: that of SAE_REGISTRY.",
        show_default=False,
    ),
]
"""Which CLIP and layer a published SAE is of: a file of a user's own, as commands ask for it."""
