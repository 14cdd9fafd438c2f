"""The sub-command that takes other labs' embeddings as a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption
from sae.cli.options import spread
from sae.core.errors import quote
from sae.core.progress import bar


@dataclass(frozen=True, kw_only=True)
class ImagesOfVectors:
    """Which images foreign embeddings are of."""

    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images they are of, read in torchvision's ImageFolder order where "
            "the embeddings do not name them.",
            show_default=False,
        ),
    ] = None
    ids: Annotated[
        Path | None,
        typer.Option(
            help="CSV or parquet table, a line a vector, where the embeddings do not name their "
            "images: a column path (in --images), id or image_id, and maybe label.",
            show_default=False,
        ),
    ] = None
    domain: Annotated[str, typer.Option(help="Domain of these images: sketch, photo.")] = "images"


@spread
def adopt(
    source: Annotated[
        Path,
        typer.Argument(
            help="saev's shards, embedding chunks batch_*.pt, clip-retrieval's img_emb_*.npy, or "
            "latents.npy; or their folder."
        ),
    ],
    out: Annotated[Path, console.declare_out("Folder of the EmbeddingStore to write: a pointer.")],
    whose: ImagesOfVectors,
    layer: Annotated[
        str,
        typer.Option(
            help="Which of the layers that saev kept; default: the last it lists. Of an .npy file "
            "of embeddings in place of latents: which layer's, e.g. projected."
        ),
    ] = "",
    tokens: Annotated[
        str,
        typer.Option(
            help="cls, patch (saev: content) or all; default: patch where there are patches."
        ),
    ] = "",
    clip: Annotated[
        str, typer.Option(help="The CLIP that made them, where their files do not say.")
    ] = "",
    config: ConfigOption = None,
) -> None:
    """Make a store of other labs' embeddings that stay where they are; nothing is copied.

    With --images every image is known by the hash of its content, as `sae embed` knows it, and can
    be shown; without, by its place alone. Every command takes the foreign folder itself, too, as
    FOLDER or FOLDER@10,cls (layer and tokens).
    """
    from sae.data.adopt import adopt as adopt_store
    from sae.data.formats.layout import Choice
    from sae.data.sources.folders import parse_domains

    parse_domains([f"{whose.domain}=."])
    with bar("adopt") as progress:
        choice = Choice(layer, tokens, clip)
        store = adopt_store(source, out, choice, whose.images, whose.domain, progress, whose.ids)
    info = store.info
    model = f" of {info.clip}" if info.clip else ""
    console.say(
        f"{store.layout.form}: {info.n_images:,} images, {info.tokens_per_image} x {info.d} each, "
        f"layer {info.layer}{model}, tokens {info.tokens}"
    )
    following = f"interp collect {quote(out)}"
    if info.layer != "latents":
        following = f"sae train {quote(out)} --out SAE"
    console.finish({"store": out}, [following])
