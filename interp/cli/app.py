"""`interp`: from an SAE to scored, reviewable labels. One sub-command per stage."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli import ask, bench
from interp.cli.analysis.causal import causal
from interp.cli.analysis.compare import compare
from interp.cli.analysis.find import explain_image, find
from interp.cli.analysis.transfer import transfer
from interp.cli.ledger import ledger
from interp.cli.pages.hand_over import cards, export, show
from interp.cli.pages.review import review, verdicts
from interp.cli.workflow.command import init, run
from interp.evidence.config import CollectConfig, CollectInfo
from interp.llm.types import OPENROUTER
from interp.pipeline.settings import DemoSettings, Work
from sae.cli import console
from sae.cli.console import (
    ConfigOption,
    DebugOption,
    ImagesOption,
    JsonOption,
    VersionOption,
)
from sae.cli.live import DomainArgument, LiveConfig, open_embeddings, sort_words
from sae.cli.options import spread
from sae.core.errors import OK, USAGE, UserError, quote
from sae.core.quiet import run_as_rank
from sae.data.sources.folders import FolderConfig

if TYPE_CHECKING:
    from sae.data.store import EmbeddingStore

app = typer.Typer(
    name="interp",
    help="What do the latents of an SAE on CLIP respond to? Collect, explain, score, review.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
ExportOption = Annotated[
    tuple[str, Path] | None,
    typer.Option(
        metavar="patchsae DIR",
        help="Also write PatchSAE's five .pt files and cls_sae_cnt.npy.",
        show_default=False,
    ),
]


GroupsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV (path,group) of images that belong together: a burst, a person, a sketch and its "
        "photo. They stay on one side, as near-duplicates do.",
        show_default=False,
    ),
]
ExportThresholdOption = Annotated[
    float, typer.Option(help="Activation from which cls_sae_cnt.npy counts a token.", min=0)
]


def main() -> int:
    """Run the command line, also as one of the processes of `torchrun -m interp`; the exit code."""
    console.use_utf8()
    return run_as_rank(lambda program: console.run(app, program), "interp")


@app.callback()
def common(debug: DebugOption = False, version: VersionOption = False) -> None:
    """What do the latents of an SAE on CLIP respond to? Collect, explain, score, review."""


for _command in (run, init):
    app.command()(_command)


@app.command()
@spread
def demo(
    settings: DemoSettings,
    out: Annotated[Path, console.declare_out("The run's folder.")] = Path("results/demo"),
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """All stages on the built-in world: draw, embed, train, collect, explain, score, gallery."""
    from interp.bench.demo import run_demo
    from interp.cli.workflow.telling import Telling

    run_demo(out, settings, Telling(Work()).tell, json)


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Also ask this model whether it sees images.")
    ] = None,
    base_url: Annotated[str, typer.Option(help="Any OpenAI-compatible server.")] = OPENROUTER,
) -> int:
    """Versions, device, disk, the key (masked), the server, and whether a model sees images."""
    from interp.cli.doctor import examine

    model_fails = False
    for finding in examine(base_url, model):
        console.say(f"{'ok ' if finding.ok else '!! '} {finding.what:<19} {finding.state}")
        model_fails |= finding.what == model and not finding.ok
    return USAGE if model_fails else OK


@app.command()
@spread
def collect(
    sae: Annotated[
        Path, typer.Argument(help="SAE folder, or any SAE that import reads; or latents.npy.")
    ],
    store: Annotated[
        Path | None,
        typer.Argument(
            help="EmbeddingStore with the images to look at; none for latents.npy.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Name under results/; default: the SAE folder's.")
    ] = None,
    *,
    settings: CollectConfig,
    live: LiveConfig,
    folders: FolderConfig,
    more: DomainArgument = None,
    images: ImagesOption = None,
    groups: GroupsOption = None,
    export: ExportOption = None,
    export_threshold: ExportThresholdOption = 0.2,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Collect again.")] = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """One pass over a store: statistics and example images of every latent.

    The store may be another lab's: saev's shards, embedding chunks; latents.npy needs no SAE. With
    --domain NAME=DIR in its place images go through the SAE's own CLIP and layer: all once, and
    those that may be shown once more. With another lab's --images, --domain NAME is their domain.
    Several GPUs or machines share it: torchrun --nproc-per-node N -m -- interp collect SAE STORE.
    """
    from interp.evidence.dense_latents import take_images
    from interp.pipeline.collect import run_collect, run_export
    from interp.run.run import Run, run_folder
    from sae.core.progress import bar

    Run.is_begun(folder := run_folder(_name_of(sae) if run is None else run))
    live, domain = _domain_of(live, images)
    store, domains, _ = sort_words(store, more or [], live.domain)
    _require_possible(export, images, domains)
    if images:
        Run.begin(folder)
        links = folders.follow_links
        with bar("images") as progress:
            sae, store = take_images(sae, store, folder, images, domain, links, progress)
    with _subject(sae, store, domains, live, folders, device, folder) as subject:
        with bar("collect") as progress:
            rest = (device, progress, overwrite, groups)
            made, info = run_collect(sae, subject, folder, settings, *rest)
        if export is not None:
            with bar("export") as progress:
                run_export(sae, subject, export[1], export_threshold, device, progress)
    _say_collected(info)
    console.write_figures(json, dataclasses.asdict(info))
    exported = {"export": export[1]} if export else {}
    console.finish({"run": made.path} | exported, _ways_to_explain(made.path))


def _require_possible(
    export: tuple[str, Path] | None, images: list[str] | None, domains: list[str]
) -> None:
    from interp.pipeline.collect import require_export, require_store_alone

    require_export(export)
    require_store_alone(images=bool(images), domains=bool(domains), export=bool(export))


def _domain_of(live: LiveConfig, images: list[str] | None) -> tuple[LiveConfig, str]:
    """Without what --domain says of another lab's --images: the name of theirs."""
    names = [word for word in live.domain or [] if "=" not in word]
    if images and names and len(names) == len(live.domain or []) == 1:
        return dataclasses.replace(live, domain=None), names[0]
    if images and live.domain:
        raise UserError("--images go with a store, and --domain NAME=DIR stands in its place")
    return live, "images"


@contextmanager
def _subject(
    sae: Path,
    store: Path | None,
    domains: list[str],
    live: LiveConfig,
    folders: FolderConfig,
    device: str,
    run: Path,
) -> Iterator[Path | EmbeddingStore | None]:
    """What is collected from: the store; of images, the run keeps their list in store/."""
    if not domains:
        live.require_unused()
        # Written latents, and another lab's embeddings, are opened behind.
        if store is None or not (store / "store.json").exists():
            yield store
            return
        with open_embeddings(store, [], live, folders, device) as opened:
            yield opened
        return
    from interp.run.run import Run
    from sae.interchange.load import load

    trained = load(sae).config
    Run.begin(run)
    with open_embeddings(None, domains, live, folders, device, trained, run / "store") as opened:
        yield opened


def _say_collected(info: CollectInfo) -> None:
    console.say(
        f"{info.n_latents} latents on {info.n_images} images: {info.n_live} live, "
        f"{info.n_dead} dead, {info.n_dense} dense"
    )
    console.say(f"  {info.describe(info.n_images)}")
    if info.n_weak:
        console.say(
            f"  {info.n_weak} live ones are silent on too few images: some of their negatives are "
            "weak, images on which they are least active"
        )


def _ways_to_explain(run: Path) -> list[str]:
    return [f"interp explain --model {model} --run {quote(run)}" for model in ("local", "MODEL")]


_ASKED = (ask.explain, ask.score, transfer, causal, compare, find, explain_image)
for _command in (*_ASKED, cards, show, export):
    app.command()(_command)


def _name_of(sae: Path) -> str:
    """What a run of this SAE is called when nobody says it."""
    return sae.resolve().stem if sae.is_file() else sae.resolve().name


for _command in (review, bench.bench, ask.models):
    app.command()(_command)
for _group in (ledger, verdicts):
    app.add_typer(_group)


if __name__ == "__main__":
    sys.exit(main())
