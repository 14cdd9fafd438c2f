"""`sae`: from images to a sparse autoencoder. One sub-command per stage; heavy imports inside."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import typer

from sae.cli import (
    adopt,
    console,
    edits,
    generate,
    hub,
    interchange,
    plan,
    probe,
    reports,
    segments,
    steering,
)
from sae.cli.console import (
    ConfigOption,
    DebugOption,
    DeviceOption,
    ImagesOption,
    JsonOption,
    VersionOption,
)
from sae.cli.live import (
    DomainArgument,
    LiveConfig,
    RingConfig,
    StoreArgument,
    open_embeddings,
    sort_words,
)
from sae.cli.options import RecipeOption, spread
from sae.clip.config import SourceConfig
from sae.core.errors import UserError, quote
from sae.core.progress import bar
from sae.data.sources.folders import FolderConfig
from sae.evaluation.config import EvalConfig
from sae.training.config import TrainConfig

app = typer.Typer(
    name="sae",
    help="CLIP embeddings of sketches and photos, and sparse autoencoders (SAEs) on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Throw away what is there and start anew.")
]


SweepOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE,VALUE: an SAE for each value, on one pass over the data; more may "
        "follow, for every combination: lr=1e-3,4e-3 k=16,32.",
        rich_help_panel="Sweeps",
    ),
]
LogOption = Annotated[
    str, typer.Option(help="Also send the figures to tensorboard, trackio or wandb.")
]


def main() -> None:
    """The console script `sae`."""
    console.use_utf8()
    sys.exit(console.run(app, "sae"))


@app.callback()
def common(debug: DebugOption = False, version: VersionOption = False) -> None:
    """CLIP embeddings of sketches and photos, and sparse autoencoders (SAEs) on them."""


@app.command()
def world(
    out: Annotated[Path, console.declare_out("Folder to write.")],
    n: Annotated[int, typer.Option(help="Images in all.", min=1)] = 4000,
    seed: Annotated[int, typer.Option(help="Worlds of different seeds share no scene.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels a side.", min=32, max=512)] = 128,
    paired: Annotated[
        bool, typer.Option("--paired", help="Draw every scene as a sketch and as a photo.")
    ] = False,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks",
            help="Also write masks/, a PNG for each image: which object covers each pixel, by the "
            "numbers of mask_names in world.json.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option(help="Drawing processes; 0: all cores.")] = 0,
    tier: Annotated[
        str,
        typer.Option(
            help="easy; or hard: objects that differ in all attributes, small and covered ones, "
            "and 293 conjunctions of concepts in the truth, most of them rare.",
        ),
    ] = "easy",
    config: ConfigOption = None,
) -> None:
    """Draw the built-in world: sketches and photos whose truth is known (truth.parquet)."""
    from sae.world import Tier, write_world

    with bar("draw") as progress:
        write_world(out, n, seed, size, workers, paired, masks, progress, cast(Tier, tier))
    wrote = {"images": out, "truth": out / "truth.parquet"}
    console.finish(
        {**wrote, "masks": out / "masks"} if masks else wrote,
        [
            f"sae embed --domain {quote(f'sketch={out}/sketch')} {quote(f'photo={out}/photo')} "
            f"--out {quote(out.parent / 'store')}"
        ],
    )


@app.command()
@spread
def embed(
    out: Annotated[Path, console.declare_out("Folder of the EmbeddingStore to write.")],
    folders: FolderConfig,
    source: SourceConfig,
    more: DomainArgument = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.", min=1)] = 128,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Embed folders of images with CLIP; a stopped run goes on with the same command.

    The class of an image is the first folder under its domain's; where these are train, val and
    test, the one below. WordNet ids get ImageNet's names. Files that cannot be read are listed with
    the reason in skipped.csv. With several GPUs or machines, which then share the images:
    torchrun --nproc-per-node N -m -- sae embed ... --out STORE.
    """
    from sae.clip.embed import Meter
    from sae.clip.embed import embed as embed_images
    from sae.clip.model import load_clip, resolve_device
    from sae.clip.vectors import name_stores
    from sae.core.distributed import join_processes
    from sae.data.sources.folders import find_images, find_roots, parse_domains

    places = parse_domains([*(source.domain or []), *(more or [])])
    files, roots, meter = find_images(places, folders), find_roots(places), Meter()
    with join_processes(resolve_device(device), "embedding") as ranks, bar("embed") as progress:
        model = load_clip(source.clip, str(ranks.device), texts=False)
        stores = name_stores(model, out, source)
        infos = embed_images(
            files,
            roots,
            stores,
            model,
            dtype=source.dtype,
            batch_size=batch_size,
            workers=source.n_workers,
            allow_skipped=folders.allow_skipped,
            follow_links=folders.follow_links,
            max_pixels=folders.max_pixels,
            progress=progress,
            ranks=ranks,
            meter=meter,
        )
    reports.report_embedding(dict(zip(stores, infos, strict=True)), files, meter, json)


@app.command()
@spread
def train(
    out: Annotated[
        Path, console.declare_out("Folder of the SAE to write; of a sweep, of its SAEs.")
    ],
    settings: TrainConfig,
    live: RingConfig,
    folders: FolderConfig,
    store: StoreArgument = None,
    sweep: SweepOption = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=...]...",
            help="Further words of --sweep, or of --domain.",
            show_default=False,
        ),
    ] = None,
    log: LogOption = "",
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    recipe: RecipeOption = "",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Train an SAE on a store: FVU + alpha x AuxK, unit decoder rows, tied start.

    With --domain in place of a store images go through CLIP while it trains, once a pass, in an
    order drawn by chance. A stopped training goes on with the same command. With several GPUs or
    machines, and a store:
    torchrun --nproc-per-node N -m -- sae train STORE --out DIR.
    """
    from sae.clip.model import resolve_device
    from sae.training.settings.recipes import recipe_file
    from sae.training.sweep.run import run_sweep
    from sae.training.train import TrainContext
    from sae.training.train import train as train_sae

    store, domains, variants = sort_words(store, more or [], live.domain, sweep)
    if recipe:
        console.say(f"recipe:   {recipe_file(recipe)} (to change it: copy it, --config COPY)")
    with open_embeddings(store, domains, live, folders, device) as opened:
        if opened.info.on_the_fly:
            settings = replace(settings, buffer_tokens=live.buffer_tokens)
        with bar("train", unit="steps") as progress:
            context = TrainContext(resolve_device(device), progress, overwrite, log)
            if not sweep:
                result = train_sae(opened, out, settings, context)
            else:
                found = run_sweep(opened, out, settings, variants, context)
    where = (store or "STORE", domains)
    if sweep:
        best = found.best()
        reports.report_sweep(found, console.name_next(best, *where)[:1] if best else [], json)
    else:
        reports.report_training(result, console.name_next(result.out, *where), json)


@app.command(name="eval")
@spread
def evaluate(
    model: Annotated[Path, typer.Argument(help="SAE folder.")],
    asked: EvalConfig,
    live: LiveConfig,
    folders: FolderConfig,
    store: StoreArgument = None,
    more: DomainArgument = None,
    images: ImagesOption = None,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Report an SAE on images that its training has not seen, per domain; writes eval.json.

    With --domain in place of a store the images go through the SAE's own CLIP and layer.
    Another lab's SAE is evaluated as it lies there, and nothing is written beside it.
    """
    from sae.clip.model import resolve_device
    from sae.data.roots import confirm
    from sae.evaluation.evaluate import evaluate_run
    from sae.interchange.load import load

    store, domains, _ = sort_words(store, more or [], live.domain)
    if store is not None:
        confirm(store, images or [], folders.follow_links)
    sae, folder = load(model), _own_folder(model, asked)
    with (
        open_embeddings(store, domains, live, folders, device, sae.config) as opened,
        bar("evaluate") as progress,
    ):
        report = evaluate_run(
            sae,
            opened,
            folder,
            resolve_device(device),
            asked,
            load(asked.against) if asked.against else None,
            progress,
        )
    wrote = reports.report_evaluation(report, folder, asked.plots, json)
    console.finish(wrote, console.name_next(model, store or "STORE", domains)[1:])


def _own_folder(model: Path, asked: EvalConfig) -> Path | None:
    """Where figures are written beside the SAE; None for another lab's."""
    from sae.model.sae import is_ours

    if is_ours(model):
        return model
    if asked.plots or asked.calibrate:
        does = "--plots are drawn beside" if asked.plots else "--calibrate changes"
        place = quote(model)
        raise UserError(f"{does} an SAE of ours; `sae import {place} --out DIR` makes it one")
    return None


app.command(name="import")(interchange.import_sae)
app.command(name="export")(interchange.export_sae)
app.command()(adopt.adopt)
app.command()(plan.plan)
app.command()(steering.classes)
app.command()(probe.probe)
steering.steer.command()(edits.edit)
steering.steer.command()(segments.segment)
steering.steer.command()(generate.generate)
app.add_typer(steering.steer, name="steer")
for _command in (hub.push, hub.pull):
    app.command()(_command)


if __name__ == "__main__":
    main()
