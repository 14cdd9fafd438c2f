"""The sub-commands that act on the network: the latents of classes, and steering with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, ImagesOption, JsonOption, LinksOption
from sae.cli.options import spread
from sae.core.errors import quote
from sae.core.progress import bar
from sae.data.classes.config import ClassConfig, ClassInfo
from sae.evaluation.config import read_whole_numbers
from sae.steering.config import SteerConfig

if TYPE_CHECKING:
    import pandas as pd

    from sae.evaluation.plots import Recalls

ModelArgument = Annotated[
    Path, typer.Argument(metavar="SAE", help="SAE folder, or any file that import reads.")
]
StoreArgument = Annotated[Path, typer.Argument(help="EmbeddingStore.")]
N_SHOWN = 12
"""Classes of which the first latents are printed."""

steer = typer.Typer(
    help="Change what latents say inside the network, and see what comes out.",
    no_args_is_help=True,
)


@spread
def classes(
    model: ModelArgument,
    store: StoreArgument,
    out: Annotated[Path, console.declare_out("Folder to write; RUN/classes: in RUN's gallery.")],
    how: ClassConfig,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A run, or its labels.csv: the words for the latents.", show_default=False
        ),
    ] = None,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Find the latents of each class: cls_sae_cnt.npy (PatchSAE's), classes.parquet, classes.json.

    The classes are those of the store's folders. In the folder of a run, as RUN/classes, they are
    a filter of its gallery, which `interp cards` writes.
    """
    from sae.clip.live_store import with_embeddings
    from sae.clip.model import resolve_device
    from sae.data.classes.latents import read_table
    from sae.data.store import EmbeddingStore
    from sae.interchange.load import load
    from sae.steering.classes import find_class_latents

    opened, sae = with_embeddings(EmbeddingStore.open(store), device), load(model)
    with bar("classes") as progress:
        sae = sae.to(resolve_device(device))
        info = find_class_latents(sae, opened, out, how, labels, progress)
    opened.report()
    _report_classes(info, read_table(out, info))
    figures = {"n_classes": len(info.names), "n_left_out": info.n_left_out}
    console.write_figures(json, figures | {"n_images": sum(info.n_images)})
    place, words = quote(out), f"{quote(model)} {quote(store)}"
    following = [f"sae steer classify {words} --classes-from {place}"]
    if (out.parent / "run.json").exists():
        following.append(f"interp cards --run {quote(out.parent)}")
    console.finish({"classes": out}, following)


@steer.command()
@spread
def classify(
    model: ModelArgument,
    store: StoreArgument,
    how: SteerConfig,
    classes_from: Annotated[
        Path,
        typer.Option(
            help="What `sae classes` wrote, or a folder with PatchSAE's cls_sae_cnt.npy.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        console.declare_out("Folder to write; default: beside --classes-from, as NAME-steered."),
    ] = None,
    k: Annotated[
        str,
        typer.Option(
            help="Numbers of latents; default: 1,2,5,10,50,100,500,1000,2000 if there, and all."
        ),
    ] = "",
    only: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only this class; may be repeated.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    images: ImagesOption = None,
    follow_links: LinksOption = False,
    json: JsonOption = None,
    config: ConfigOption = None,
) -> None:
    """Keep or take out the first k latents of each class, and see which images it still names.

    Writes metrics.csv (recall of the class and of the others, with intervals), metrics_wide.csv (as
    PatchSAE has it) and recall.png.
    """
    from sae.clip.live_store import with_embeddings
    from sae.clip.store_images import load_clip_of
    from sae.data.classes.latents import read_class_latents
    from sae.data.roots import confirm
    from sae.data.store import EmbeddingStore
    from sae.interchange.load import load
    from sae.model.identity import sae_identity
    from sae.model.match import require_match
    from sae.steering.classify import steer_classes
    from sae.steering.report import require_steered, summarise, write_steered

    confirm(store, images or [], follow_links)
    opened, sae = with_embeddings(EmbeddingStore.open(store), device), load(model)
    require_match(sae.config, opened.info)
    target = out or classes_from.parent / f"{classes_from.name}-steered"
    require_steered(target)
    ks, labels = read_whole_numbers("--k", k), opened.images["label"]
    latents = read_class_latents(classes_from, sae.n_latents, sae_identity(sae), labels)
    with bar("steer") as progress:
        asked = (sae, opened, load_clip_of(opened, device), latents, how, ks, only or (), progress)
        means = summarise(write_steered(target, partial(steer_classes, *asked), how, sae, opened))
    _report_recalls(means)
    console.write_figures(json, _flat(means))
    console.finish({"metrics": target / "metrics.csv", "figure": target / "recall.png"})


def _report_classes(info: ClassInfo, table: pd.DataFrame) -> None:
    console.say(
        f"{len(info.names)} classes of {sum(info.n_images)} images; {info.n_left_out} of "
        f"{info.n_latents} latents are in the list of too many classes and left out"
    )
    empty = len(info.names) - table["class"].nunique()
    if empty:
        console.complain(
            f"WARNING: {empty} classes have no latent left; raise --max-classes (now "
            f"{info.max_classes:g}) or lower --top (now {info.top})"
        )
    first = table[table["rank"] <= 5]
    rows = [
        (
            name,
            ", ".join(
                f"#{n} {word}".strip()
                for n, word in zip(part["latent"], part["label"], strict=True)
            ),
        )
        for name, part in first.groupby("class", sort=False)
    ]
    for name, latents in rows[:N_SHOWN]:
        console.say(f"  {name}: {latents}")
    if len(rows) > N_SHOWN:
        console.say(f"  ... and {len(rows) - N_SHOWN} classes more")


def _report_recalls(means: Mapping[str, Recalls]) -> None:
    """A line for each k, means over the classes."""
    plain = means["no_sae"]
    console.say(f"without the SAE {plain.own[0]:.1%} of the images are named as their class")
    kinds = [kind for kind in ("off", "control_off", "on", "control_on") if kind in means]
    header = ("k", *(column for kind in kinds for column in (kind, "others")))
    rows = []
    for k in means["off"].k:
        cells = [str(k)]
        for kind in kinds:
            curve = means[kind]
            at = curve.k.index(k) if k in curve.k else None
            both = ("", "") if at is None else (curve.own[at], curve.others[at])
            cells += [cell if isinstance(cell, str) else f"{cell:.1%}" for cell in both]
        rows.append(tuple(cells))
    console.print_table(rows, header)


def _flat(means: Mapping[str, Recalls]) -> dict[str, float]:
    """ "no_sae", "off_10", "off_10_others", ..."""
    return {
        f"{kind}_{k}{end}" if k else f"{kind}{end}": recall
        for kind, curve in means.items()
        for k, own, others in zip(*curve, strict=True)
        for end, recall in (("", own), ("_others", others))
    }
