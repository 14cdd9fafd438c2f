"""The stages of a run, each from files to files: what the commands and the demo have in common."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interp.evidence.reader import EvidenceReader
from interp.explain.explainer import ExplainConfig, VlmExplainer, explain_prompt
from interp.explain.run import ExplainSummary, explain_run, pending_latents, summarise
from interp.llm.ledger.ledger import Ledger
from interp.llm.server.preflight import preflight
from interp.pictures.cache import PictureCache, read_images
from interp.pipeline.live_view import Meter, live
from interp.pipeline.paid_model import EXPLAIN_SHAPE, JUDGE_SHAPE, layout_of, paid_model, watched
from interp.pipeline.settings import N_AT_WORK, ModelSettings, Work
from interp.records.types import Example, Explanation, Score
from interp.run.results import latest_explanations
from interp.run.run import Run
from interp.score.judge import Judge, VlmJudge, judge_prompt
from interp.score.run import ScoreSummary, pending_tests, score_run, stored_summary
from sae.core.errors import UserError
from sae.core.progress import Progress, bar

if TYPE_CHECKING:
    from PIL import Image

    from interp.evidence.collect import CollectConfig
    from interp.evidence.config import CollectInfo
    from interp.local.clip_encoder import Eyes

N_BACKGROUND = 1024
"""Images of the explain side that tell the local model what is usual."""
_ALL = Work()


def run_collect(
    sae_dir: Path,
    store_dir: Path | None,
    run_dir: Path,
    config: CollectConfig,
    device: str,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[Run, CollectInfo]:
    """Make the run and collect its evidence; without a store, of written latents in `sae_dir`."""
    from interp.evidence.collect import collect
    from interp.evidence.dense_latents import subject
    from sae.clip.model import resolve_device

    store, model = subject(sae_dir, store_dir)
    run = Run.create(run_dir, sae_dir, model, store)
    info = collect(store, model, run_dir, config, resolve_device(device), progress, overwrite)
    run.remember("collect", dataclasses.asdict(config))
    return run, info


def require_export(kind: str) -> None:
    """Raise `UserError` when `collect --export KIND` cannot be written."""
    if kind != "patchsae":
        raise UserError(f"--export {kind!r} is not known; write --export patchsae DIR")


def run_export(
    sae_dir: Path,
    store_dir: Path | None,
    out: Path,
    threshold: float,
    device: str,
    progress: Progress | None = None,
) -> None:
    """Write PatchSAE's files of an SAE to `out`, in a pass of its own."""
    from interp.evidence.dense_latents import subject
    from interp.evidence.patchsae_export import export_patchsae
    from sae.clip.model import resolve_device

    store, model = subject(sae_dir, store_dir)
    export_patchsae(store, model, out, resolve_device(device), threshold, progress)


def run_explain(
    run: Run,
    settings: ModelSettings,
    latents: Sequence[int],
    work: Work = _ALL,
    label: str = "explain",
) -> ExplainSummary:
    """Explain `latents`, going on where an earlier call stopped; nothing is asked twice."""
    if settings.is_local:
        return _explain_locally(run, settings, latents, work, label)
    config = explain_config(settings)
    prompt = explain_prompt(config)
    todo = pending_latents(
        run.explanations, settings.model, prompt, latents, retry_failed=work.retry_failed
    )
    if not todo:
        n_skipped = len(set(latents))
        return summarise(run.explanations, settings.model, prompt, latents, n_skipped=n_skipped)
    with Ledger(run.ledger) as ledger:
        model = paid_model(settings, ledger, "explain")
        run.remember("explain", settings.recorded())
        meter = Meter(n_total=len(todo[: work.limit]))
        with live(label, meter):
            return explain_run(
                run.explanations,
                PictureCache(run.evidence),
                VlmExplainer(model, config, patch_grid(run), again=work.retry_failed),
                latents,
                concurrency=model.gate.room,
                on_record=functools.partial(_count, meter),
                limit=work.limit,
                retry_failed=work.retry_failed,
                opened=(watched(model, meter), preflight(model)),
            )


def run_score(
    run: Run,
    settings: ModelSettings,
    control: str = "",
    latents: Iterable[int] | None = None,
    work: Work = _ALL,
    label: str = "score",
) -> ScoreSummary:
    """Score the newest label of every latent (or of `latents`) on held-out images."""
    tests = labels_to_test(run, latents)
    if settings.is_local:
        return _score_locally(run, settings, control, tests, work, label)
    layout = layout_of(settings, JUDGE_SHAPE)
    judge_of = (settings.model, judge_prompt(layout))
    todo = pending_tests(
        run.scores, run.evidence, *judge_of, tests, control, retry_failed=work.retry_failed
    )
    if not todo:
        return stored_summary(run.scores, *judge_of, control, tests)
    stage = score_stage(control)
    with Ledger(run.ledger) as ledger:
        model = paid_model(settings, ledger, stage)
        run.remember(stage, settings.recorded())
        meter = Meter(n_total=len(todo[: work.limit]))
        with live(label, meter):
            return score_run(
                run.scores,
                PictureCache(run.evidence),
                VlmJudge(model, layout, again=work.retry_failed),
                tests,
                control=control,
                concurrency=model.gate.room,
                on_record=functools.partial(_count, meter),
                limit=work.limit,
                retry_failed=work.retry_failed,
                opened=(watched(model, meter), preflight(model)),
            )


def explain_config(settings: ModelSettings) -> ExplainConfig:
    """How the explainer is shown things by these settings."""
    return ExplainConfig(layout=layout_of(settings, EXPLAIN_SHAPE))


def score_stage(control: str) -> str:
    """What a score's questions are filed under."""
    return "score-control" if control else "score"


def patch_grid(run: Run) -> tuple[int, int] | None:
    """(rows, columns) of the store's patches; None where images have one token."""
    grid = run.evidence.info.grid
    return (grid[0], grid[1]) if grid else None


def labels_to_test(run: Run, latents: Iterable[int] | None) -> list[Explanation]:
    """The newest explanation of each of `latents`, or of all. Raises `UserError` without any."""
    explanations = newest_explanations(run)
    wanted = set(explanations if latents is None else latents)
    return [e for latent, e in explanations.items() if latent in wanted]


def newest_explanations(run: Run) -> dict[int, Explanation]:
    """The last explanation of every latent. Raises `UserError` when there is none."""
    newest = latest_explanations(run.explanations)
    if not newest:
        raise UserError(f"{run.path} has no explanations; run `interp explain --run {run.path}`")
    return dict(sorted(newest.items()))


def choose_latents(reader: EvidenceReader, spec: str | None, dense: bool = False) -> list[int]:
    """Latents to work on: those of `spec` ("3,17,100-120"), else the live ones, and the dense ones
    too when asked.

    Raises `UserError` for what is no number or no latent of the run.
    """
    if spec is None:
        wanted = ("live", "dense") if dense else ("live",)
        return [latent for latent, status in enumerate(reader.status) if status in wanted]
    chosen: set[int] = set()
    for part in filter(None, (part.strip() for part in spec.split(","))):
        first, dash, last = part.partition("-")
        try:
            chosen |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise UserError(
                f"--latents {spec!r}: {part!r} is no number or range like 100-120"
            ) from None
    beyond = [latent for latent in sorted(chosen) if latent >= reader.info.n_latents]
    if beyond or not chosen:
        what = f"there is no latent {beyond[0]}" if beyond else "it names no latent"
        raise UserError(
            f"--latents {spec!r}: {what}; they go from 0 to {reader.info.n_latents - 1}"
        )
    return sorted(chosen)


def background(reader: EvidenceReader) -> Iterator[Image.Image]:
    """An even sample of the explain side's images, the same whenever it is asked for."""
    examples = reader.examples
    silent = examples[(examples["side"] == "explain") & (examples["kind"] == "silent")]
    chosen = silent.drop_duplicates("image_id").sort_values("image_id")[:N_BACKGROUND]
    for values in chosen.itertuples(index=False):
        yield from read_images(reader.image, [Example(*values)]).values()


def local_eyes(run: Run, settings: ModelSettings) -> Eyes:
    """The local model's CLIP; in one process every stage sees with the same, each image once."""
    from sae.data.store import EmbeddingStore

    clip = settings.clip or EmbeddingStore.open(run.store).info.clip
    if not clip:
        raise UserError(
            f"{run.store} does not say which CLIP it is of; name one that sees the images: "
            "--clip ViT-B-32/openai, or --clip tiny, which needs no download"
        )
    return _eyes(clip, settings.device)


@functools.cache
def _eyes(clip: str, device: str) -> Eyes:
    from interp.local.clip_encoder import Eyes
    from sae.clip.model import load_clip

    return Eyes(load_clip(clip, device))


def _explain_locally(
    run: Run, settings: ModelSettings, latents: Sequence[int], work: Work, label: str
) -> ExplainSummary:
    from interp.local.models import LocalNamer
    from interp.local.vocabulary import load_vocabulary

    eyes = local_eyes(run, settings)
    vocabulary = load_vocabulary(settings.vocabulary, eyes.clip.name)
    namer = LocalNamer(eyes, vocabulary, background(run.evidence))
    run.remember("explain", settings.recorded())
    todo = pending_latents(run.explanations, namer.name, namer.prompt, latents)
    with _bar(label, len(todo[: work.limit])) as on_record:
        return explain_run(
            run.explanations,
            run.evidence,
            namer,
            latents,
            concurrency=N_AT_WORK,
            on_record=on_record,
            limit=work.limit,
        )


def _score_locally(
    run: Run,
    settings: ModelSettings,
    control: str,
    tests: Sequence[Explanation],
    work: Work,
    label: str,
) -> ScoreSummary:
    from interp.local.models import LocalJudge

    judge: Judge = LocalJudge(local_eyes(run, settings), background(run.evidence))
    run.remember(score_stage(control), settings.recorded())
    todo = pending_tests(run.scores, run.evidence, judge.name, judge.prompt, tests, control)
    with _bar(label, len(todo[: work.limit])) as on_record:
        return score_run(
            run.scores,
            run.evidence,
            judge,
            tests,
            control=control,
            concurrency=N_AT_WORK,
            on_record=on_record,
            limit=work.limit,
        )


@contextmanager
def _bar(label: str, n: int) -> Iterator[Callable[[object], None]]:
    """A progress bar over latents; gives what counts one more."""
    with bar(label, unit="latents") as progress:
        n_done = 0

        def count(_record: object) -> None:
            nonlocal n_done
            n_done += 1
            progress(n_done, n)

        yield count


def _count(meter: Meter, record: Explanation | Score) -> None:
    meter.n_done += 1
    meter.n_ok += record.failure is None
    refused = record.failure in ("refused", "moderated")
    meter.n_refused += refused
    meter.n_failed += record.failure is not None and not refused
