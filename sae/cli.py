"""`sae`: from images to a sparse autoencoder. One sub-command per stage; heavy imports inside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sae import console
from sae.console import ConfigOption, JsonOption
from sae.errors import UserError

app = typer.Typer(
    name="sae",
    help="CLIP embeddings of sketches and photos, and sparse autoencoders (SAEs) on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Throw away what is there and start anew.")
]


def main() -> None:
    """The console script `sae`."""
    sys.exit(console.run(app, "sae"))


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """CLIP embeddings of sketches and photos, and sparse autoencoders (SAEs) on them."""


@app.command()
def world(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    n: Annotated[int, typer.Option(help="Images in all.", min=1)] = 4000,
    seed: Annotated[int, typer.Option(help="Worlds of different seeds share no scene.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels a side.", min=32, max=512)] = 128,
    paired: Annotated[
        bool, typer.Option("--paired", help="Draw every scene as a sketch and as a photo.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Drawing processes; 0: all cores.")] = 0,
    config: ConfigOption = None,
) -> None:
    """Draw the built-in world: sketches and photos whose truth is known (truth.parquet)."""
    from sae.progress import bar
    from sae.world import write_world

    with bar("draw") as progress:
        write_world(out, n, seed=seed, size=size, workers=workers, paired=paired, progress=progress)
    console.finish(
        {"images": out, "truth": out / "truth.parquet"},
        [f"sae embed --domain sketch={out}/sketch photo={out}/photo --out {out.parent}/store"],
    )


@app.command()
def embed(
    out: Annotated[Path, typer.Option(help="Folder of the EmbeddingStore to write.")],
    domain: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR; more may follow: sketch=DIR photo=DIR.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=DIR]...", show_default=False)
    ] = None,
    clip: Annotated[
        str,
        typer.Option(
            help="tiny (built in), MODEL/PRETRAINED of open_clip (ViT-B-32/openai), MODEL/random, "
            "hf-hub:org/name, local-dir:path."
        ),
    ] = "tiny",
    layer: Annotated[
        str, typer.Option(help="Transformer block (from 0; -1 is the last), or projected.")
    ] = "projected",
    tokens: Annotated[str, typer.Option(help="cls, patch or all.")] = "cls",
    dtype: Annotated[str, typer.Option(help="float16 or float32, on disk.")] = "float16",
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.", min=1)] = 128,
    workers: Annotated[int, typer.Option(help="Decoding processes; -1: up to 8, 0: none.")] = -1,
    device: DeviceOption = "auto",
    allow_skipped: Annotated[
        bool,
        typer.Option("--allow-skipped", help="Go on when over 1% of the files are unreadable."),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Embed folders of images with CLIP; a stopped run goes on with the same command.

    The class of an image is the first folder under its domain's. Files that cannot be read are
    listed with the reason in skipped.csv.
    """
    from sae.clip import load_clip
    from sae.embed import embed as embed_images
    from sae.images import find_images, parse_domains
    from sae.progress import bar
    from sae.store import Source

    roots = parse_domains([*(domain or []), *(more or [])])
    files = find_images(roots)
    model = load_clip(clip, device)
    source = Source(model.name, model.resolve_layer(layer), _one_of("--tokens", tokens, TOKENS))
    with bar("embed") as progress:
        info = embed_images(
            files,
            roots,
            out,
            model,
            source,
            dtype=_one_of("--dtype", dtype, ("float16", "float32")),
            batch_size=batch_size,
            workers=None if workers < 0 else workers,
            allow_skipped=allow_skipped,
            progress=progress,
        )
    console.say(
        f"embedded {info.n_images} images ({', '.join(info.roots)}), "
        f"{info.tokens_per_image} x {info.d} each; skipped {info.n_skipped}"
    )
    console.finish(
        {"store": out} | ({"skipped": out / "skipped.csv"} if info.n_skipped else {}),
        [f"sae train {out} --out {out.parent}/sae"],
    )


@app.command()
def train(
    store: Annotated[Path, typer.Argument(help="EmbeddingStore.")],
    out: Annotated[Path, typer.Option(help="Folder of the SAE to write.")],
    n_latents: Annotated[int, typer.Option(help="0: expansion x width.", min=0)] = 0,
    expansion: Annotated[int, typer.Option(help="Latents per embedding dimension.", min=1)] = 8,
    k: Annotated[int, typer.Option(help="Latents kept per token.", min=1)] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-3,
    batch_size: Annotated[int, typer.Option(help="Tokens per step.", min=1)] = 1024,
    epochs: Annotated[
        int,
        typer.Option(help="Passes; 0: 10, or as many (to 500) as make 1,000,000 tokens.", min=0),
    ] = 0,
    n_tokens: Annotated[int, typer.Option(help="Budget in tokens, in place of epochs.")] = 0,
    alpha: Annotated[float, typer.Option(help="Weight of AuxK.")] = 1 / 32,
    k_aux: Annotated[int, typer.Option(help="Dead latents per token; 0: width / 2.")] = 0,
    dead_after: Annotated[
        int, typer.Option(help="Silent tokens that make a latent dead; 0: by the budget.")
    ] = 0,
    warmup: Annotated[float, typer.Option(help="Share of steps with rising lr.")] = 0.05,
    decay: Annotated[float, typer.Option(help="Share of steps with falling lr.")] = 0.3,
    holdout: Annotated[float, typer.Option(help="Share of images kept for `sae eval`.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Train a TopK SAE on a store: FVU + alpha x AuxK, unit decoder rows, tied start."""
    from sae.clip import resolve_device
    from sae.progress import bar
    from sae.store import EmbeddingStore
    from sae.train import TrainConfig
    from sae.train import train as train_sae

    settings = TrainConfig(
        n_latents=n_latents,
        expansion=expansion,
        k=k,
        lr=lr,
        batch_size=batch_size,
        epochs=epochs,
        n_tokens=n_tokens,
        alpha=alpha,
        k_aux=k_aux,
        dead_after=dead_after,
        warmup=warmup,
        decay=decay,
        holdout=holdout,
        seed=seed,
    )
    opened = EmbeddingStore.open(store)
    with bar("train", unit="steps") as progress:
        result = train_sae(
            opened, out, settings, resolve_device(device), progress, overwrite=overwrite
        )
    row = result.last
    state = "trained" if result.trained else "already trained with these settings"
    console.say(
        f"{state}: {result.model.n_latents} latents, k {k}; on the last batch FVU {row.fvu:.3f}, "
        f"L0 {row.l0:.1f}, dead {row.dead:.1%}"
    )
    console.write_figures(json, row._asdict())
    console.finish({"SAE": out}, [f"sae eval {out} {store}", f"interp collect {out} {store}"])


@app.command(name="eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="SAE folder.")],
    store: Annotated[Path, typer.Argument(help="EmbeddingStore.")],
    zeroshot: Annotated[
        bool, typer.Option(help="Also classify images with and without the SAE in the way.")
    ] = True,
    n_zeroshot: Annotated[int, typer.Option(help="Images per domain for that, at most.")] = 2000,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Report an SAE on images that its training has not seen, per domain; writes eval.json."""
    from sae.clip import resolve_device
    from sae.evaluate import evaluate_run
    from sae.model import load
    from sae.progress import bar
    from sae.store import EmbeddingStore

    opened = EmbeddingStore.open(store)
    with bar("evaluate") as progress:
        report = evaluate_run(
            load(model), opened, model, resolve_device(device), n_zeroshot * zeroshot, progress
        )
    console.print_table(*report.table())
    console.write_figures(json, report.flat())
    console.finish({"report": model / "eval.json"}, [f"interp collect {model} {store}"])


TOKENS = ("cls", "patch", "all")


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> Any:
    if value in known:
        return value
    raise UserError(f"{flag} {value!r} is none of {', '.join(known)}")


if __name__ == "__main__":
    main()
