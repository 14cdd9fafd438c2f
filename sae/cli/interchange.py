"""The sub-commands that bring other labs' SAEs in, and take ours out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.cli.options import spread
from sae.clip.config import RegistryOption
from sae.core.errors import FAILURES, OK, quote
from sae.data.tokens import tokens_named

if TYPE_CHECKING:
    from sae.interchange import Imported
    from sae.interchange.origin import Origin
    from sae.model.sae import SAE

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the SAE that is in --out.")
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a foreign SAE is to be read, and where it was trained, where a user knows it."""

    form: Annotated[
        str, typer.Option("--format", help="Read as this format; default: recognised.")
    ] = ""
    k: Annotated[
        int, typer.Option(min=0, help="Latents kept per token, where the file does not tell.")
    ] = 0
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key or tensor of the file that its reader does not know, and that changes no "
            "latent; may be repeated.",
            show_default=False,
        ),
    ] = None
    clip: Annotated[
        str,
        typer.Option(
            help="CLIP that it was trained on, where neither its files nor the registry tell.",
            show_default=False,
        ),
    ] = ""
    layer: Annotated[
        str, typer.Option(help="Likewise its block, or projected.", show_default=False)
    ] = ""
    tokens: Annotated[
        str, typer.Option(help="Likewise: cls, patch or all.", show_default=False)
    ] = ""
    registry: RegistryOption = None

    def named(self) -> dict[str, str]:
        """What was named, by the names of an SAE's config."""
        tokens = tokens_named(self.tokens) if self.tokens else ""
        return {"clip": self.clip, "layer": self.layer, "tokens": tokens}


@spread
def import_sae(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_HUB_ID",
            help="File or folder; owner/name or hf:owner/name[@revision][/folder] on the hub.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, console.declare_out("Folder of the SAE to write.")],
    asked: Reading,
    store: Annotated[
        Path | None,
        typer.Option(
            help="EmbeddingStore of the layer it was trained on: measures the FVU, and gives the "
            "mean and scale that some formats do not hold.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Make another lab's SAE ours: recognised, never executed, with exactly its own latents.

    Where it was trained is told by its own files, or by a registry of published SAEs. Exit code 4
    when it rebuilds the store worse than the store's mean does (FVU above 1).
    """
    from sae.interchange import import_sae as import_into
    from sae.interchange.export import require_room
    from sae.interchange.locate import locate
    from sae.interchange.registry import read_registry

    require_room(out, source, overwrite)  # before anything is fetched
    read_registry(asked.registry)
    imported = import_into(
        locate(source),
        out,
        store,
        form=asked.form,
        k=asked.k,
        ignore=asked.ignore or (),
        registry=asked.registry,
        named=asked.named(),
        overwrite=overwrite,
    )
    console.say(f"{imported.format}: {imported.maths.line()}")
    _say_origin(imported.origin, source, out)
    for note in imported.notes:
        console.say(f"  {note}")
    if imported.fvu is None:
        console.say(f"  FVU not checked, without --store; `sae eval {quote(out)} STORE` does it")
    else:
        console.say(f"  FVU {imported.fvu:.3f} on {imported.n_tokens:,} tokens of {store}")
    console.write_figures(json, _figures(imported))
    console.finish({"SAE": out}, console.name_next(out, store or "STORE"))
    return _verdict(imported)


def export_sae(
    model: Annotated[Path, typer.Argument(help="SAE folder, or any file that import reads.")],
    to: Annotated[str, typer.Option(help="sparsify or saelens.")],
    out: Annotated[Path, console.declare_out("Folder to write.")],
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
) -> None:
    """Write an SAE for another library: its own loader then gives the same latents.

    Centring and scale are folded into the weights: raw embeddings go in and come out.
    """
    from sae.interchange.export import WRITERS, export_to, require_room

    require_room(out, model, overwrite)
    export_to(_loaded(model), to, out)
    console.say(f"with {WRITERS[to].library}: {WRITERS[to].load.format(out)}")
    console.finish({to: out}, [f"sae import {quote(out)} --out DIR"])


def _say_origin(origin: Origin, source: str, out: Path) -> None:
    """Where it was trained, and how to name what nobody tells."""
    console.say(f"  trained on: {origin.line()}")
    if origin.missing:
        again = f"sae import {quote(source)} --out {quote(out)} --overwrite"
        console.say(f"  where you know it: `{again} {origin.remedy()}`")


def _loaded(path: Path) -> SAE:
    """Ours, or another lab's, of which the notes are printed."""
    from sae import interchange
    from sae.core.places import require_sae
    from sae.model.sae import SAE, is_ours

    require_sae(path)
    if is_ours(path):
        return SAE.load(path)
    imported = interchange.read(path)
    for note in imported.notes:
        console.say(f"  {note}")
    return imported.model


def _verdict(imported: Imported) -> int:
    if imported.fvu is None or not imported.fvu > 1:
        return OK
    console.complain(
        f"WARNING: FVU {imported.fvu:.3g} is above 1: on these embeddings this SAE is worse than "
        f"their mean. It was trained on {imported.origin.line()}. Likely causes: a store of "
        "another CLIP, layer or kind of tokens; embeddings of length 1 expected or given; mean and "
        "scale that its file lacks"
    )
    return FAILURES


def _figures(imported: Imported) -> dict[str, object]:
    """One flat object."""
    from sae.interchange.origin import NAMES

    return {
        "format": imported.format,
        **dataclasses.asdict(imported.maths),
        "fvu": imported.fvu,
        "n_tokens": imported.n_tokens,
        **{name: imported.origin[name] for name in NAMES},
        "source_sha256": imported.model.config.source_sha256,
    }
