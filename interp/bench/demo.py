"""`interp demo`: the whole walk on the built-in world, without a key, a GPU or a download.

Every stage writes files and is skipped when they are there, so a stopped demo goes on.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from interp.bench.truth import TruthReport, judge_labels, measure, read_truth
from interp.evidence.config import CollectConfig
from interp.pipeline.causal import run_causal
from interp.pipeline.clip_model import background, judge_encoder
from interp.pipeline.collect import run_collect
from interp.pipeline.explain import ExplainStage
from interp.pipeline.judging.specificity import measure_specificity
from interp.pipeline.score import ScoreStage, newest_explanations
from interp.pipeline.settings import ModelSettings, choose_latents
from interp.pipeline.transfer import TransferStage, choose_domains
from interp.records.circular import CIRCULAR, is_circular
from interp.report.controls import flat, side_by_side, table
from interp.report.gallery import build_gallery
from interp.report.labels import write_labels
from interp.report.specificity import specificities, summary_line
from interp.report.transfer_figure import draw_transfer
from interp.run.run import Run
from interp.run.truth_file import write_truth
from sae.cli import console
from sae.clip.embed import embed
from sae.clip.model import load_clip, resolve_device
from sae.core.errors import quote
from sae.core.progress import Progress, bar
from sae.data.folders import find_images, parse_domains
from sae.data.store import EmbeddingStore
from sae.data.store_format import Source
from sae.evaluation.evaluate import evaluate_run
from sae.interchange.load import load
from sae.training.train import TrainConfig, TrainContext, train
from sae.world import write_world

if TYPE_CHECKING:
    import pandas as pd

N_IMAGES = 8000
"""Sketches and photos in all; 4 in 5 scenes of the world show one object or several of a kind."""
TRAINING = TrainConfig(n_latents=128, k=6, epochs=40)
"""About as many latents as the world has concepts: more would split them."""


def run_demo(out: Path, settings: ModelSettings, json: Path | None = None) -> None:
    """Run all stages in the folder `out`; print what each found, and where the labels are."""
    started = time.monotonic()
    if settings.device in ("auto", "cpu"):
        torch.set_num_threads(os.cpu_count() or 1)
    Run.begin(out)
    world, store, sae = out / "world", out / "store", out / "sae-trained"
    with bar("1/8 draw", "images") as progress:
        write_world(world, N_IMAGES, progress=progress)
    with bar("2/8 embed", "images") as progress:
        embed_world(world, store, settings.device, progress)
    with bar("3/8 train", "steps") as progress:
        device = resolve_device(settings.device)
        train(EmbeddingStore.open(store), sae, TRAINING, TrainContext(device, progress))
    with bar("4/8 evaluate", "images") as progress:
        report = evaluate_run(load(sae), EmbeddingStore.open(store), sae, device, 500, progress)
    console.print_table(*report.table())
    with bar("5/8 collect", "images") as progress:
        run, info = run_collect(sae, store, out, CollectConfig(), settings.device, progress)
    console.say(f"{info.n_live} live latents, {info.n_dead} dead, {info.n_dense} dense")
    console.say(f"  {info.describe(info.n_images)}")
    figures = _explain_and_score(run, settings)
    drawn = read_truth(world / "truth.parquet")
    write_truth(run.path, judge_labels(run.evidence, drawn, newest_explanations(run)))
    with bar("8/8 cards", "latents") as progress:
        gallery = build_gallery(run, progress)
    with bar("compare with the truth", "scores") as progress:
        truth = _compare(run, settings, drawn, progress)
    console.print_table(truth.table())
    console.write_figures(
        json, {**report.flat(), **flat(side_by_side(run)), **figures, **dataclasses.asdict(truth)}
    )
    console.say(f"done in {time.monotonic() - started:.0f} s")
    console.finish(
        {"labels": run.labels, "gallery": gallery},
        [
            "sae embed --domain photo=YOUR_IMAGES --clip ViT-B-32/openai --out work/store",
            f"interp explain --model openai/gpt-4.1-mini --run {quote(out)}"
            "   (needs OPENROUTER_API_KEY)",
        ],
    )


def embed_world(world: Path, store: Path, device: str, progress: Progress) -> None:
    """The projected embeddings of a drawn world, by the tiny CLIP."""
    roots = parse_domains([f"sketch={world / 'sketch'}", f"photo={world / 'photo'}"])
    source = Source("tiny", "projected", "cls")
    clip = load_clip("tiny", device)
    embed(find_images(roots), roots, {store: source}, clip, progress=progress)


def _explain_and_score(run: Run, settings: ModelSettings) -> dict[str, float]:
    """What was found beside the scores comes back as figures."""
    latents = choose_latents(run.evidence, None)
    explained = ExplainStage(run, settings, latents).run("6/8 explain")
    console.say(
        f"{explained.n_labelled + explained.n_skipped} latents explained by {settings.model}"
    )
    stage = ScoreStage(run, settings)
    summary = stage.run("7/8 score")
    console.say(f"held-out AUROC: mean {summary.auroc:.3f}")
    if is_circular(summary.scorer, run.info.clip):
        console.say(f"  {CIRCULAR}")
    if explained.usd + summary.usd > 0:
        console.say(f"cost: ${explained.usd:.4f} to explain, ${summary.usd:.4f} to score")
    if settings.is_local:  # a paid model would be asked as much again
        measure_specificity(run, stage)
        console.say(summary_line(specificities(run.results)))
        ScoreStage(run, settings, control="shuffled").run("7/8 control")
    console.print_table(table(side_by_side(run)))
    with bar("7/8 causal", "latents") as progress:
        effects = run_causal(run, settings.device, progress=progress)
    for line in effects.lines():
        console.say(line)
    figures = _cross_domains(run, settings, latents) if settings.is_local else {}
    write_labels(run)
    return figures


def _cross_domains(run: Run, settings: ModelSettings, latents: list[int]) -> dict[str, float]:
    """Which labels hold in sketches and in photos: in words, as a figure, and as numbers."""
    stage = TransferStage(run, settings, settings, choose_domains(run, ""), latents)
    found = stage.run("7/8").transfer
    draw_transfer(run.path)
    header, *rows = found.table()
    console.print_table(rows, header)
    for line in found.lines():
        console.say(f"  {line}")
    return found.flat()


def _compare(
    run: Run, settings: ModelSettings, truth: pd.DataFrame, progress: Progress
) -> TruthReport:
    """Labels against the planted truth; the judge of it is the local one, whoever explained."""
    from interp.local.models import LocalJudge

    reader = run.evidence
    encoder = judge_encoder(run, settings)
    judge = LocalJudge(encoder, background(reader, encoder=encoder))
    return measure(reader, load(run.sae), truth, newest_explanations(run), judge, progress)
