"""The sub-commands that share an SAE on the hub, and bring one from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption
from sae.cli.options import spread
from sae.core.errors import UserError

if TYPE_CHECKING:
    from sae.interchange.hub.model_card import CardSettings
    from sae.interchange.hub.parcel import Item
    from sae.interchange.hub.upload import Pushed, Target

RepoArgument = Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub.")]


@dataclass(frozen=True, kw_only=True)
class Publishing:
    """How something is published."""

    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, or require that it is.")
    ] = False
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to; default: the main one.")
    ] = None
    license: Annotated[
        str, typer.Option(help="Licence of the SAE, by the hub's id: mit, cc-by-4.0.")
    ] = ""
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="The hub's id of a dataset it was trained on; may be repeated."),
    ] = None
    message: Annotated[str, typer.Option(help="Of the commit.")] = ""
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the card; send nothing.")
    ] = False


@spread
def push(
    how: Publishing,
    model: Annotated[
        Path, typer.Argument(help="SAE folder; with --space a run's folder (results/RUN).")
    ],
    repo: Annotated[
        str | None,
        typer.Argument(metavar="REPO", help="owner/name on the hub.", show_default=False),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="A run's folder (results/RUN): its labels.csv and gallery go up too.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="As --gallery, and its labels and scores as parquet tables, with a card that "
            "tells how they were tested. `sae push --labels RUN REPO` takes the run's own SAE.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Put the run's gallery up as the static page of this Space instead.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Put an SAE on the Hugging Face hub, with a model card; folders of this machine are cut out.

    `sae push --labels RUN REPO` puts a run's SAE, labels, scores and gallery into one repository.
    `sae push RUN --space OWNER/NAME` puts the gallery of a run up as a page that anyone can open.
    The token is read from HF_TOKEN, or from the login of `hf auth login`.
    """
    from sae.interchange.hub.model_card import CardSettings
    from sae.interchange.hub.upload import Target

    if labels is not None and repo is None and space is None:
        model, repo = labels / "sae", str(model)
    settings = CardSettings(space or repo or "", how.license, tuple(how.dataset or ()))
    to = Target(settings.repo, "space" if space else "model", how.private, how.revision)
    _require_one(space, repo, gallery, labels)
    if space is None:
        run = (labels or gallery, labels is not None)
        done = _push_model(model, run, settings, to, how)
    else:
        done = _push_space(model, settings, to, how)
    if done is not None:
        _say_pushed(done, to)


def _require_one(
    space: str | None, repo: str | None, gallery: Path | None, labels: Path | None
) -> None:
    if gallery is not None and labels is not None:
        raise UserError("--labels takes the gallery of its run up too; leave --gallery out")
    if space is not None and (repo, gallery, labels) != (None, None, None):
        raise UserError("--space takes a run's folder alone: sae push RUN --space OWNER/NAME")
    if space is None and repo is None:
        raise UserError("give REPO, owner/name on the hub; or a run's folder and --space")


def _say_pushed(done: Pushed, to: Target) -> None:
    for name in done.removed:
        console.say(f"  removed {name}, of an earlier push")
    for warning in done.warnings:
        console.complain(warning)
    console.say(f"{'commit:':<9} {done.url}")
    at = f" --revision {to.revision}" if to.revision else ""
    console.finish({}, [f"sae pull {to.repo}{at} --out DIR"] if to.kind == "model" else [])


def _push_model(
    model: Path,
    run: tuple[Path | None, bool],
    settings: CardSettings,
    to: Target,
    how: Publishing,
) -> Pushed | None:
    from sae.interchange.hub.client import require_repo
    from sae.interchange.hub.model_card import model_card
    from sae.interchange.hub.parcel import pack
    from sae.interchange.hub.push_pull import push as send

    require_repo(to.repo)
    parcel = pack(model, *run)
    card = model_card(parcel, settings)
    if _shown(parcel.items, parcel.notes, card, how.dry_run):
        return None
    return send(
        parcel, card, to.repo, private=to.private, revision=to.revision, message=how.message
    )


def _push_space(run: Path, settings: CardSettings, to: Target, how: Publishing) -> Pushed | None:
    from sae.interchange.hub.client import require_repo
    from sae.interchange.hub.gallery import pack_gallery
    from sae.interchange.hub.space import push_space, space_card

    require_repo(to.repo)
    packed = pack_gallery(run)
    card = space_card(run, settings)
    if _shown(packed.items, packed.notes, card, how.dry_run):
        return None
    return push_space(packed, card, to, how.message)


def _shown(items: Sequence[Item], notes: Iterable[str], card: str, dry_run: bool) -> bool:
    """Say what goes up; with the card, and then True, where nothing is to be sent."""
    from sae.interchange.hub.parcel import CARD

    _say_files([*((item.name, item.n_bytes) for item in items), (CARD, len(card.encode()))])
    for note in notes:
        console.say(f"  {note}")
    if dry_run:
        console.say(f"\n{card}\nnothing was sent (--dry-run)")
    return dry_run


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
    from sae.interchange.load import look_at

    done = bring(repo, out, revision, overwrite)
    _say_files((file.name, file.n_bytes) for file in done.files)
    console.say(f"trained on: {look_at(str(out)).origin.line()}")
    c = done.model.config
    console.say(f"{c.n_latents} latents of {c.activation}, width {c.d}; commit {done.commit}")
    console.finish({"SAE": out}, console.name_next(out))


def _say_files(files: Iterable[tuple[str, int | None]]) -> None:
    """A line each, the gallery's all in one."""
    n_pages, n_bytes = 0, 0
    for name, size in files:
        if name.startswith(("gallery/", "data/", "thumbs/")) or name.endswith((".css", ".js")):
            n_pages, n_bytes = n_pages + 1, n_bytes + (size or 0)
            continue
        console.say(f"  {name:<18} {_size(size)}")
    if n_pages:
        console.say(f"  {f'gallery ({n_pages:,})':<18} {_size(n_bytes)}")


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "size not known"
    return f"{n_bytes / 1e6:>10,.2f} MB" if n_bytes >= 10_000 else f"{n_bytes:>10,} B"
