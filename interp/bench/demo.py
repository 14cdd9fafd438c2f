"""`interp demo`: `interp run` on the built-in world, without a key, a GPU or a download.

What it has beside that: the world is drawn first, and the labels are compared with its truth.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.bench.truth import TruthReport, judge_labels, measure, read_truth
from interp.pipeline.clip.model import background, judge_encoder
from interp.pipeline.score import newest_explanations
from interp.pipeline.settings import JudgeSettings, ModelSettings
from interp.pipeline.workflow.names import CARDS
from interp.pipeline.workflow.outcomes import Crossed, Evaluated, Outcome, Tell
from interp.pipeline.workflow.settings import Settings
from interp.pipeline.workflow.steps import run_steps
from interp.pipeline.workflow.summary import summarise_run
from interp.records.family import LINEAR, LOCAL
from interp.report.nulls.controls import flat, side_by_side
from interp.run.run import Run
from interp.run.truth_file import write_truth
from sae.cli import console
from sae.clip.config import SourceConfig
from sae.clip.embed import embed
from sae.clip.model import load_clip
from sae.core.errors import quote
from sae.core.progress import Progress, bar
from sae.data.sources.folders import FolderConfig, find_images, parse_domains
from sae.data.store_format import Source
from sae.evaluation.config import EvalConfig
from sae.interchange.load import load
from sae.training.train import TrainConfig
from sae.world import write_world

if TYPE_CHECKING:
    import pandas as pd

N_IMAGES = 8000
"""Sketches and photos in all; 4 in 5 scenes of the world show one object or several of a kind."""
TRAINING = TrainConfig(n_latents=128, k=6, epochs=40)
"""About as many latents as the world has concepts: more would split them."""


def run_demo(out: Path, settings: ModelSettings, tell: Tell, json: Path | None = None) -> None:
    """Run all stages in the folder `out`; print what each found, and where the labels are.

    `tell` says what each step of `interp run` came to.
    """
    started = time.monotonic()
    if settings.device in ("auto", "cpu"):
        torch.set_num_threads(os.cpu_count() or 1)
    Run.begin(out)
    asked = demo_settings(out, settings)
    with bar(f"1/{len(asked.steps) + 2} draw", "images") as progress:
        write_world(out / "world", N_IMAGES, progress=progress)
    figures: dict[str, Any] = {}

    def note(outcome: Outcome) -> None:
        tell(outcome)
        if isinstance(outcome, Evaluated):
            figures.update(outcome.figures)
        if isinstance(outcome, Crossed):
            figures.update(outcome.made.transfer.flat())

    drawn = read_truth(out / "world" / "truth.parquet")

    def mark(run: Run) -> None:
        write_truth(run.path, judge_labels(run.evidence, drawn, newest_explanations(run)))

    run = run_steps(asked, note, first=2, n_more=1, before={CARDS: mark})
    n = len(asked.steps) + 2
    with bar(f"{n}/{n} compare with the truth", "scores") as progress:
        truth = _compare(run, settings, drawn, progress)
    console.print_table(truth.table())
    for line in summarise_run(run).lines(settings.max_cost):
        console.say(line)
    console.write_figures(json, {**figures, **flat(side_by_side(run)), **dataclasses.asdict(truth)})
    console.say(f"done in {time.monotonic() - started:.0f} s")
    console.finish(
        {"labels": run.labels, "gallery": run.gallery},
        [
            "interp run --domain photo=YOUR_IMAGES --clip ViT-B-32/openai --model local "
            "--out work/mine",
            f"interp explain --model openai/gpt-4.1-mini --run {quote(out)}"
            "   (needs OPENROUTER_API_KEY)",
        ],
    )


def demo_settings(out: Path, settings: ModelSettings) -> Settings:
    """The demo as a run: the world's two domains, the tiny CLIP, an SAE of the world's size."""
    given = dataclasses.asdict(settings)
    judge = {**given, "model": LOCAL if settings.model == LINEAR else settings.model}
    return Settings(
        out=out,
        domains=_domains(out / "world"),
        source=SourceConfig(clip="tiny"),
        folders=FolderConfig(),
        training=dataclasses.asdict(TRAINING),
        evaluation=EvalConfig(n_zeroshot=500),
        explainer=settings,
        judge=JudgeSettings(**judge),
    )


def embed_world(world: Path, store: Path, device: str, progress: Progress) -> None:
    """The projected embeddings of a drawn world, by the tiny CLIP."""
    roots = _domains(world)
    source = Source("tiny", "projected", "cls")
    clip = load_clip("tiny", device)
    embed(find_images(roots), roots, {store: source}, clip, progress=progress)


def _domains(world: Path) -> dict[str, Path]:
    return parse_domains([f"sketch={world / 'sketch'}", f"photo={world / 'photo'}"])


def _compare(
    run: Run, settings: ModelSettings, truth: pd.DataFrame, progress: Progress
) -> TruthReport:
    """Labels against the planted truth; the judge of it is the local one, whoever explained."""
    from interp.local.clip_encoder import SeenOnce
    from interp.local.models import LocalJudge

    reader = run.evidence
    encoder = judge_encoder(run, settings)
    judge = LocalJudge(encoder, background(reader, encoder=encoder))
    images = SeenOnce(reader, encoder).image  # of the stages before, the judge knows nearly all
    said = newest_explanations(run)
    return measure(reader, load(run.sae), truth, said, judge, images, progress)
