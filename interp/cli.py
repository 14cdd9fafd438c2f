"""`interp`: from an SAE to scored, reviewable labels. One sub-command per stage."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.questions import OPENROUTER
from sae import console
from sae.console import ConfigOption, JsonOption
from sae.errors import OK, USAGE

if TYPE_CHECKING:
    from interp.explain import ExplainSummary
    from interp.scoring import ScoreSummary
    from interp.stages import ModelSettings

app = typer.Typer(
    name="interp",
    help="What do the latents of an SAE on CLIP respond to? Collect, explain, score, review.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunOption = Annotated[
    str | None,
    typer.Option("--run", help="Name under results/, or a folder; default: the newest run."),
]
ModelOption = Annotated[
    str,
    typer.Option(help="local (CLIP, no key), or a vision model's id: openai/gpt-4.1-mini, ..."),
]
BaseUrlOption = Annotated[
    str, typer.Option(help="Any OpenAI-compatible server: OpenRouter, vLLM, Ollama, llama.cpp.")
]
LatentsOption = Annotated[
    str | None, typer.Option(help="Only these: 3,17,100-120.", show_default=False)
]
DenseOption = Annotated[
    bool, typer.Option("--dense", help="Also latents that fire on more than 10% of the images.")
]
ConcurrencyOption = Annotated[int, typer.Option(help="Latents in work at once.", min=1)]
TimeoutOption = Annotated[float, typer.Option(help="Seconds for one request.", min=0.1)]
DeadlineOption = Annotated[
    float, typer.Option(help="Seconds for one question with all its retries.", min=0.1)
]
ReasoningOption = Annotated[
    str, typer.Option(help="Effort of models that reason: none, minimal, low, ...")
]
ClipOption = Annotated[
    str, typer.Option("--clip", help="CLIP of `--model local`; default: the store's.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]


def main() -> None:
    """The console script `interp`."""
    sys.exit(console.run(app, "interp"))


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """What do the latents of an SAE on CLIP respond to? Collect, explain, score, review."""


@app.command()
def demo(
    model: ModelOption = "local",
    base_url: BaseUrlOption = OPENROUTER,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("results/demo"),
    concurrency: ConcurrencyOption = 16,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """All stages on the built-in world: draw, embed, train, collect, explain, score, gallery."""
    from interp.demo import run_demo
    from interp.stages import ModelSettings

    settings = ModelSettings(model=model, base_url=base_url, concurrency=concurrency, device=device)
    run_demo(out, settings, json)


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Also ask this model whether it sees images.")
    ] = None,
    base_url: BaseUrlOption = OPENROUTER,
) -> int:
    """Versions, device, disk, the key (masked), the server, and whether a model sees images."""
    from interp.doctor import examine

    model_fails = False
    for finding in examine(base_url, model):
        console.say(f"{'ok ' if finding.ok else '!! '} {finding.what:<19} {finding.state}")
        model_fails |= finding.what == model and not finding.ok
    return USAGE if model_fails else OK


@app.command()
def collect(
    sae: Annotated[Path, typer.Argument(help="SAE folder.")],
    store: Annotated[Path, typer.Argument(help="EmbeddingStore with the images to look at.")],
    run: Annotated[
        str | None, typer.Option("--run", help="Name under results/; default: the SAE folder's.")
    ] = None,
    n_top: Annotated[int, typer.Option(help="Top images per latent, side and domain.")] = 16,
    n_sample: Annotated[int, typer.Option(help="Active images per latent and side.")] = 64,
    n_silent: Annotated[int, typer.Option(help="Silent images per latent and side.")] = 32,
    n_hard: Annotated[int, typer.Option(help="Hard silent images per latent and side.")] = 16,
    dense_above: Annotated[float, typer.Option(help="Share of images that makes it dense.")] = 0.1,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Collect again.")] = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """One pass over a store: statistics and example images of every latent."""
    from interp.collect import CollectConfig
    from interp.runs import run_folder
    from interp.stages import run_collect
    from sae.progress import bar

    settings = CollectConfig(
        n_top=n_top, n_sample=n_sample, n_silent=n_silent, n_hard=n_hard, dense_above=dense_above
    )
    folder = run_folder(run or sae.resolve().name)
    with bar("collect") as progress:
        made, info = run_collect(sae, store, folder, settings, device, progress, overwrite)
    console.say(
        f"{info.n_latents} latents on {info.n_images} images: {info.n_live} live, "
        f"{info.n_dead} dead, {info.n_dense} dense"
    )
    console.write_figures(json, dataclasses.asdict(info))
    console.finish(
        {"run": made.path}, ["interp explain --model local", "interp explain --model MODEL"]
    )


@app.command()
def explain(
    model: ModelOption,
    run: RunOption = None,
    base_url: BaseUrlOption = OPENROUTER,
    latents: LatentsOption = None,
    dense: DenseOption = False,
    concurrency: ConcurrencyOption = 16,
    timeout: TimeoutOption = 120.0,
    deadline: DeadlineOption = 600.0,
    reasoning: ReasoningOption = "",
    clip: ClipOption = "",
    vocabulary: Annotated[
        str, typer.Option(help="Words of `--model local`: auto, world, general, or a file.")
    ] = "auto",
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Ask a model what the images of each latent share.

    A stopped run goes on, and nothing is asked twice. The key is read from OPENROUTER_API_KEY.
    """
    from interp.evidence import EvidenceReader
    from interp.labels import write_labels
    from interp.runs import Run
    from interp.stages import ModelSettings, choose_latents, run_explain
    from sae.progress import bar

    opened = Run.open(run)
    chosen = choose_latents(EvidenceReader(opened.path), latents, dense)
    settings = ModelSettings(
        model=model,
        base_url=base_url,
        concurrency=concurrency,
        timeout=timeout,
        deadline=deadline,
        reasoning=reasoning,
        clip=clip,
        vocabulary=vocabulary,
        device=device,
    )
    with bar("explain", unit="latents") as progress:
        summary = run_explain(opened, settings, chosen, progress)
    _say_explained(summary, settings)
    console.write_figures(json, _flat(summary))
    written = {"labels": write_labels(opened.path), "answers": opened.explanations}
    console.finish(written, [f"interp score --model {model} --run {opened.path}"])


@app.command()
def score(
    model: ModelOption,
    run: RunOption = None,
    base_url: BaseUrlOption = OPENROUTER,
    latents: LatentsOption = None,
    control: Annotated[
        str, typer.Option(help='"shuffled" scores other latents\' labels: the floor.')
    ] = "",
    concurrency: ConcurrencyOption = 16,
    timeout: TimeoutOption = 120.0,
    deadline: DeadlineOption = 600.0,
    reasoning: ReasoningOption = "",
    clip: ClipOption = "",
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Predict from each label which held-out images activate its latent: AUROC with interval."""
    from interp.evidence import EvidenceReader
    from interp.labels import write_labels
    from interp.runs import Run
    from interp.stages import ModelSettings, choose_latents, run_score
    from sae.progress import bar

    opened = Run.open(run)
    chosen = choose_latents(EvidenceReader(opened.path), latents) if latents else None
    settings = ModelSettings(
        model=model,
        base_url=base_url,
        concurrency=concurrency,
        timeout=timeout,
        deadline=deadline,
        reasoning=reasoning,
        clip=clip,
        device=device,
    )
    with bar("score", unit="latents") as progress:
        summary = run_score(opened, settings, control, chosen, progress)
    _say_scored(summary)
    console.write_figures(json, dataclasses.asdict(summary))
    written = {"labels": write_labels(opened.path), "scores": opened.scores}
    console.finish(written, [f"interp cards --run {opened.path}"])


@app.command()
def cards(run: RunOption = None, config: ConfigOption = None) -> None:
    """Write labels.csv and the gallery of latent cards from the files of a run."""
    from interp.gallery import build_gallery
    from interp.labels import write_labels
    from interp.runs import Run
    from sae.progress import bar

    opened = Run.open(run)
    labels = write_labels(opened.path)
    with bar("cards", unit="latents") as progress:
        gallery = build_gallery(opened.path, progress)
    console.finish({"labels": labels, "gallery": gallery}, [f"open {gallery} in a browser"])


@app.command()
def show(
    latents: Annotated[
        list[int] | None, typer.Argument(help="Latents; without any, an automatic choice.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the PNG sheets.")] = Path("sheets"),
    n: Annotated[int, typer.Option(help="How many to choose automatically.", min=1)] = 12,
    run: RunOption = None,
    config: ConfigOption = None,
) -> None:
    """Draw latents as PNG sheets: top images by domain, quantiles, histogram, held-out test."""
    from interp.runs import Run
    from interp.sheets import choose, write_sheets

    opened = Run.open(run)
    written = write_sheets(opened.path, latents or choose(opened.path, n), out)
    console.finish({"sheets": out}, [f"open {written[0]}"] if written else [])


def _flat(summary: ExplainSummary) -> dict[str, float | int | str]:
    """One flat object: each kind of failure as failures/KIND."""
    fields = summary._asdict()
    kinds = fields.pop("failures")
    return {**fields, **{f"failures/{kind}": n for kind, n in kinds.items()}}


def _say_explained(summary: ExplainSummary, settings: ModelSettings) -> None:
    before = f"; {summary.n_skipped} were done before" if summary.n_skipped else ""
    console.say(f"{summary.n_labelled} latents labelled by {settings.model}{before}")
    for kind, n in sorted(summary.failures.items()):
        console.say(f"  {n} failed: {kind}")
    if summary.failures.get("too_few_images", 0) > summary.n_labelled:
        console.say(
            "  most latents fire on too few images: train fewer latents (--n-latents), add images, "
            "or take the dense latents too (--dense)"
        )
    _say_cost(summary.usd)


def _say_scored(summary: ScoreSummary) -> None:
    what = "labels of other latents (control)" if summary.control else "labels"
    if summary.n_scored + summary.n_failed == 0:
        console.say("nothing to score: no latent has a label; run `interp explain` first")
        return
    if summary.n_failed:
        console.say(f"{summary.n_failed} could not be scored (see `failure` in scores.jsonl)")
    if not summary.n_scored:
        return
    console.say(
        f"{summary.n_scored} {what} scored by {summary.scorer}: mean AUROC {summary.auroc:.3f} "
        f"(random negatives {summary.auroc_easy:.3f}, hard ones {summary.auroc_hard:.3f}), "
        f"balanced accuracy {summary.balanced_accuracy:.3f}"
    )
    alarm = "; TOO MANY to trust the figures" if summary.missing_alarm else ""
    console.say(
        f"  {summary.n_missing} of {summary.n_images} answers missing "
        f"({summary.missing_rate:.1%}), counted as chance{alarm}"
    )
    _say_cost(summary.usd)


def _say_cost(usd: float) -> None:
    if math.isnan(usd):
        console.say("  the server does not say what it bills")
    elif usd > 0:
        console.say(f"  cost of these answers: ${usd:.4f}")


if __name__ == "__main__":
    main()
