"""The sub-commands that share an SAE on the hub, and bring one from there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption

RepoArgument = Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub.")]


def push(
    model: Annotated[Path, typer.Argument(help="SAE folder.")],
    repo: RepoArgument,
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="A run's folder (results/RUN): its labels.csv and gallery go up too.",
            show_default=False,
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, or require that it is.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to; default: the main one.")
    ] = None,
    license: Annotated[
        str, typer.Option(help="Licence of the SAE, by the hub's id: mit, cc-by-4.0.")
    ] = "",
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="The hub's id of a dataset it was trained on; may be repeated."),
    ] = None,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the card; send nothing.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Put an SAE on the Hugging Face hub, with a model card; folders of this machine are cut out.

    The token is read from HF_TOKEN, or from the login of `hf auth login`.
    """
    from sae.interchange.hub.client import require_repo
    from sae.interchange.hub.model_card import CardSettings, model_card
    from sae.interchange.hub.parcel import CARD, pack
    from sae.interchange.hub.push_pull import push as send

    require_repo(repo)
    parcel = pack(model, gallery)
    card = model_card(parcel, CardSettings(repo, license, tuple(dataset or ())))
    sizes = [(item.name, item.n_bytes) for item in parcel.items]
    _say_files([*sizes, (CARD, len(card.encode()))])
    for note in parcel.notes:
        console.say(f"  {note}")
    if dry_run:
        console.say(f"\n{card}\nnothing was sent (--dry-run)")
        return
    done = send(parcel, card, repo, private=private, revision=revision, message=message)
    for name in done.removed:
        console.say(f"  removed {name}, of an earlier SAE")
    for warning in done.warnings:
        console.complain(warning)
    console.say(f"{'commit:':<9} {done.url}")
    at = f" --revision {revision}" if revision else ""
    console.finish({}, [f"sae pull {repo}{at} --out DIR"])


def pull(
    repo: RepoArgument,
    out: Annotated[Path, console.declare_out("Folder of the SAE to write.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; default: the newest.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the SAE that is in --out.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Bring an SAE from the Hugging Face hub: checked and loaded once before it is put in place."""
    from sae.interchange.hub.push_pull import pull as bring

    done = bring(repo, out, revision, overwrite)
    _say_files((file.name, file.n_bytes) for file in done.files)
    c = done.model.config
    console.say(f"{c.n_latents} latents of {c.activation}, width {c.d}; commit {done.commit}")
    console.finish({"SAE": out}, console.name_next(out))


def _say_files(files: Iterable[tuple[str, int | None]]) -> None:
    """A line each, the gallery's all in one."""
    n_pages, n_bytes = 0, 0
    for name, size in files:
        if name.startswith("gallery/"):
            n_pages, n_bytes = n_pages + 1, n_bytes + (size or 0)
            continue
        console.say(f"  {name:<18} {_size(size)}")
    if n_pages:
        console.say(f"  {f'gallery/ ({n_pages:,})':<18} {_size(n_bytes)}")


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "size not known"
    return f"{n_bytes / 1e6:>10,.2f} MB" if n_bytes >= 10_000 else f"{n_bytes:>10,} B"
