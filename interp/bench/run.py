"""`interp bench`: labelers and judges against the planted truth of a drawn world.

OUT/
    bench.json                what is measured (`BenchInfo`)
    world/ store/             drawings, and their embeddings
    constructed/              latents of known meaning (constructed.py)
    sae-trained/              an SAE, with --n-trained
    runs/<part>-<explainer>/  a run as of `interp collect`, explain and score: all judges in one
    bench.csv ...             see report.py

Every stage writes files and is skipped when they are there; nothing is paid twice.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from interp.bench.config import PARTS, BenchConfig, BenchInfo, BenchSettings, Oracle
from interp.bench.constructed import (
    INFO,
    Constructed,
    ConstructedInfo,
    read_constructed,
    write_constructed,
)
from interp.bench.demo import TRAINING, embed_world
from interp.bench.figures import MIXED, TRAINED, Figures, Line, figures_of, line_of
from interp.bench.naming import WorldTruth
from interp.bench.oracle import OracleExplainStage, OracleNamer, OracleScoreStage
from interp.bench.report import write_report
from interp.bench.truth import find_planted, read_truth
from interp.evidence.config import CollectConfig
from interp.evidence.dense_latents import open_subject
from interp.llm.cost.estimate import Estimate
from interp.llm.ledger.report import sum_unanswered, totals
from interp.llm.server.preflight import STAGE as PREFLIGHT
from interp.pipeline.collect import run_collect
from interp.pipeline.explain import ExplainStage
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import ModelSettings
from interp.records.nulls import BESIDE
from interp.records.support import find_support
from interp.run.run import Run
from sae.clip.model import resolve_device
from sae.core.errors import UserError
from sae.core.files import read_config, write_json
from sae.core.lock import LOCK, hold
from sae.core.output import require_own
from sae.core.progress import bar
from sae.data.store import EmbeddingStore
from sae.training.train import TrainContext, train
from sae.world import Tier, write_world

MARKER = "bench.json"
WIDE = dataclasses.replace(TRAINING, n_latents=1024, k=16, epochs=20)
"""Of the hard tier: more latents than concepts."""
COLLECT = CollectConfig(dense_above=0.5)
"""Planted concepts may be frequent."""
LABELS_OF_THE_ESTIMATE = "oracle:1:0"


@dataclass(frozen=True)
class Subject:
    """Latents of one part, and what is known of them."""

    part: str
    latents_dir: Path
    store_dir: Path | None
    latents: Sequence[int]
    meanings: Sequence[Constructed]
    """Of every latent there is, not only of the chosen."""
    truth: WorldTruth
    active: NDArray[np.bool_]  # (n_images, n_latents)


def run_bench(
    out: Path,
    config: BenchConfig,
    settings: BenchSettings,
    models: Sequence[str],
    judges: Sequence[str],
) -> tuple[list[Figures], dict[str, Path]]:
    """Do what is still to be done; gives the figures of each part, explainer and judge, and the
    files. Raises `UserError` where `out` holds another bench, or the money is spent."""
    _begin(out, config)
    lines: list[Line] = []
    systems: list[Figures] = []
    with closing(hold(out / LOCK)):
        for subject in prepare(out, config, settings.device):
            for model in models:
                run = _explain(out, subject, model, config, settings)
                for judge in judges:
                    own = list(_judge(out, run, subject, judge, config, settings))
                    if own:
                        lines += own
                        systems.append(figures_of(own, _dollars(run, own)))
        if not systems:
            raise UserError(f"{out}: no latent has a score; take more images (--n-images)")
        return systems, write_report(out, lines, systems)


def estimate_bench(
    out: Path,
    config: BenchConfig,
    settings: BenchSettings,
    models: Sequence[str],
    judges: Sequence[str],
) -> list[Estimate]:
    """What the paid models would cost. Draws and collects what is needed; sends nothing.

    Judges are estimated on the labels that there are: free explainers give theirs now. Planted
    names stand in for those that a paid one has not given yet.
    """
    _begin(out, config)
    estimates: list[Estimate] = []
    with closing(hold(out / LOCK)):
        for subject in prepare(out, config, settings.device):
            named: list[tuple[Run, bool]] = []
            for model in models:
                made, is_named = settings.of(model, config.tier), True
                if not made.is_local:
                    known = _open_run(out, subject, model)
                    stage = ExplainStage(known, made, subject.latents)
                    estimates.append(stage.estimate())
                    is_named = not stage.pending
                by = model if is_named else LABELS_OF_THE_ESTIMATE
                named.append((_explain(out, subject, by, config, settings), is_named))
            for judge in judges:
                made = settings.of(judge, config.tier)
                if not made.is_local:
                    estimates += [_estimate_scores(run, made, known) for run, known in named]
    return estimates


def _estimate_scores(run: Run, judge: ModelSettings, are_known: bool) -> Estimate:
    """Of what is still to be scored; where other labels stand in, of all of them."""
    stage = ScoreStage(run, judge)
    if are_known:
        return stage.estimate()
    newest = run.results.newest_explanations().values()
    return stage.estimate([e for e in newest if e.label is not None])


def prepare(out: Path, config: BenchConfig, device: str) -> Iterator[Subject]:
    """Draw the world, embed it, construct or train latents: what is there already is kept."""
    world, store_dir = out / "world", out / "store"
    tier: Tier = "hard" if config.tier == "hard" else "easy"
    with bar("draw", "images") as progress:
        write_world(world, config.n_images, config.seed, progress=progress, tier=tier)
    with bar("embed", "images") as progress:
        embed_world(world, store_dir, device, progress)
    store, truth = EmbeddingStore.open(store_dir), read_truth(world / "truth.parquet")
    known = WorldTruth(truth, store.images["image_id"].tolist())
    if any(config.n_of_kind.values()):
        folder, counts = out / "constructed", config.n_of_kind
        if not _is_constructed(folder, store, config):
            write_constructed(folder, store, truth, counts, config.seed)
        meanings, active = read_constructed(folder), _active(folder, None)
        yield Subject(PARTS[0], folder, None, range(len(meanings)), meanings, known, active)
    if config.n_trained:
        sae = out / "sae-trained"
        with bar("train", "steps") as progress:
            context = TrainContext(resolve_device(device), progress)
            train(store, sae, WIDE if tier == "hard" else TRAINING, context)
        yield _trained(out, sae, store_dir, config, known)


def _begin(out: Path, config: BenchConfig) -> None:
    require_own(out, "bench", (out / MARKER).exists())
    info = BenchInfo(**dataclasses.asdict(config))
    if (out / MARKER).exists() and (there := read_config(out / MARKER, BenchInfo)) != info:
        old, new = dataclasses.asdict(there), dataclasses.asdict(info)
        differing = [f"{name} {value!r}" for name, value in old.items() if value != new[name]]
        raise UserError(f"{out} holds the bench of {', '.join(differing)}; name another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MARKER, info)


def _is_constructed(folder: Path, store: EmbeddingStore, config: BenchConfig) -> bool:
    if not (folder / INFO).exists():
        return False
    info = read_config(folder / INFO, ConstructedInfo)
    return info.store_identity == store.info.identity and info.seed == config.seed


def _active(latents: Path, store: Path | None) -> NDArray[np.bool_]:
    """(n_images, n_latents) where each is active."""
    opened, model = open_subject(latents, store)
    found = []
    for batch in opened.batches():
        with torch.inference_mode():
            found.append((model.encode(batch.x[:, 0].float()).dense(model.n_latents) > 0).numpy())
    return np.concatenate(found)


def _trained(out: Path, sae: Path, store: Path, config: BenchConfig, truth: WorldTruth) -> Subject:
    """An even choice of the live latents of an SAE, with the concept that tells each best."""
    run = _collect(out / "runs" / f"{PARTS[1]}-evidence", sae, store)
    active, found = _active(sae, store), find_planted(run.evidence, truth.frame)
    live = run.evidence.live()
    places = np.linspace(0, len(live) - 1, min(config.n_trained, len(live))).round()
    chosen = [live[place] for place in places.astype(int)]
    meanings = [Constructed(MIXED)] * active.shape[1]
    for latent in chosen:
        best = int(np.nanargmax(truth.aurocs(active[:, latent])))
        kind = TRAINED if found.pure[latent] else MIXED
        concept = found.concept[latent] if found.pure[latent] else best
        meanings[latent] = Constructed(kind, (truth.names[concept],))
    return Subject(PARTS[1], sae, store, chosen, meanings, truth, active)


def _collect(folder: Path, latents: Path, store: Path | None) -> Run:
    with bar("collect", "images") as progress:
        return run_collect(latents, store, folder, COLLECT, "cpu", progress)[0]


def _open_run(out: Path, subject: Subject, model: str) -> Run:
    """The run of one part and explainer, with its evidence."""
    word = re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-")
    return _collect(out / "runs" / f"{subject.part}-{word}", subject.latents_dir, subject.store_dir)


def _explain(
    out: Path, subject: Subject, model: str, config: BenchConfig, settings: BenchSettings
) -> Run:
    run, made = _open_run(out, subject, model), settings.of(model, config.tier)
    oracle = Oracle.parse(model)
    if oracle is not None:
        namer = OracleNamer(oracle, subject.meanings, subject.truth.names)
        OracleExplainStage(run, made, subject.latents, namer, oracle).run(f"explain {model}")
    else:
        capped = _with_cap(out, run, "explain", made, settings)
        ExplainStage(run, capped, subject.latents).run(f"explain {model}")
    return run


def _judge(
    out: Path,
    run: Run,
    subject: Subject,
    judge: str,
    config: BenchConfig,
    settings: BenchSettings,
) -> Iterator[Line]:
    """Score, and give a line for each latent that was explained; no label has no score."""
    oracle, made = Oracle.parse(judge), settings.of(judge, config.tier)
    stage = (
        OracleScoreStage(run, made, oracle, subject.truth)
        if oracle is not None
        else ScoreStage(run, _with_cap(out, run, "score", made, settings))
    )
    stage.run(f"score {judge}")
    explanations = run.results.newest_explanations()
    by = stage.by
    all_scores = run.results.scores_with_verdicts()
    newest = {s.latent: s for s in all_scores if (s.model, s.prompt) == (by.model, by.prompt)}
    supports = find_support(explanations, newest.values())
    for latent in subject.latents:
        score, explanation = newest.get(latent), explanations.get(latent)
        if explanation is None:
            continue
        if score is not None and score.label != explanation.label:
            score = None
        meaning, active = subject.meanings[latent], subject.active[:, latent]
        state = supports[latent].state if score and latent in supports else ""
        part, truth = subject.part, subject.truth
        yield line_of(part, explanation, by.model, score, meaning, truth, active, state)


def _dollars(run: Run, lines: Sequence[Line]) -> tuple[float, float]:
    """What explaining, and this judge's scoring, has cost by the records."""
    judge = lines[0].judge
    explained = sum(e.usd for e in run.results.explanations)
    scored = sum(s.score.usd for s in run.results.score_lines if s.score.model == judge)
    return float(explained), float(scored)


def _with_cap(
    out: Path, run: Run, stage: str, made: ModelSettings, settings: BenchSettings
) -> ModelSettings:
    """With what --max-cost leaves to one stage of one run: its own spending counts again there."""
    if settings.max_cost is None or made.is_local:
        return made
    others = 0.0
    for path in sorted(out.glob(f"runs/*/{run.ledger.name}")):
        is_own = path == run.ledger
        parts = [(part.stage, part.usd) for part in totals(path)]
        parts += [(part.stage, part.usd + part.risked) for part in sum_unanswered(path)]
        counted = (stage, stage + BESIDE, PREFLIGHT)
        others += sum(usd for name, usd in parts if not (is_own and name in counted))
    return dataclasses.replace(made, max_cost=max(0.0, settings.max_cost - others))
