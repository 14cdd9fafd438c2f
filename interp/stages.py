"""The stages of a run, each from files to files: what the commands and the demo have in common."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from interp.client import ChatModel, ClientConfig, public_url
from interp.collect import CollectConfig, CollectInfo, collect
from interp.evidence import EvidenceReader
from interp.explain import Explainer, ExplainSummary, VlmExplainer, explain_run
from interp.eyes import Eyes
from interp.judge import Judge, VlmJudge
from interp.labels import latest_explanations
from interp.ledger import Ledger
from interp.pictures import read_images
from interp.questions import OPENROUTER
from interp.records import Example, Explanation
from interp.runs import Run
from interp.scoring import ScoreSummary, score_run
from interp.vocabulary import load_vocabulary
from sae.errors import UserError
from sae.files import without_place
from sae.progress import Progress
from sae.store import EmbeddingStore

LOCAL = "local"
"""The model name that stands for CLIP on this machine: no key, no network."""
UNRECORDED = ("device", "concurrency", "timeout", "deadline")
"""Settings that change how fast a run is, not what comes out."""
N_BACKGROUND = 1024
"""Images of the explain side that tell the local model what is usual."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Who answers, and how. Field by field what `--model` and its companions say."""

    model: str = LOCAL
    base_url: str = OPENROUTER
    concurrency: int = 16
    """Latents in work at once."""
    timeout: float = 120.0
    """Seconds for one request."""
    deadline: float = 600.0
    """Seconds for one question with all its retries."""
    reasoning: str = ""
    """Effort asked of models that reason ("none", "minimal", "low"); "" leaves it to the server."""
    clip: str = ""
    """CLIP of the local model; "" = the one that the run's images were embedded with."""
    vocabulary: str = "auto"
    """Where the local namer takes its words from."""
    device: str = "auto"

    @property
    def is_local(self) -> bool:
        return self.model == LOCAL

    def recorded(self) -> dict[str, object]:
        """What run.json keeps: all but what changes no result, without places and logins."""
        kept = {k: v for k, v in dataclasses.asdict(self).items() if k not in UNRECORDED}
        public = {
            "base_url": "" if self.is_local else public_url(self.base_url),
            "clip": without_place(self.clip),
            "vocabulary": Path(self.vocabulary).name,
        }
        return {**kept, **public}


def run_collect(
    sae_dir: Path,
    store_dir: Path,
    run_dir: Path,
    config: CollectConfig,
    device: str,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[Run, CollectInfo]:
    """Make the run and collect its evidence."""
    from sae.clip import resolve_device
    from sae.model import load

    store, model = EmbeddingStore.open(store_dir), load(sae_dir)
    run = Run.create(run_dir, sae_dir, model, store)
    info = collect(store, model, run_dir, config, resolve_device(device), progress, overwrite)
    run.remember("collect", dataclasses.asdict(config))
    return run, info


def run_explain(
    run: Run,
    settings: ModelSettings,
    latents: Sequence[int],
    progress: Progress | None = None,
) -> ExplainSummary:
    """Explain `latents`, going on where an earlier call stopped; nothing is asked twice."""
    reader = EvidenceReader(run.path)
    with Ledger(run.ledger) as ledger:
        explainer = _explainer(run, reader, settings, ledger)
        run.remember("explain", settings.recorded())
        return explain_run(
            run.explanations,
            reader,
            explainer,
            latents,
            concurrency=settings.concurrency,
            progress=progress,
        )


def run_score(
    run: Run,
    settings: ModelSettings,
    control: str = "",
    latents: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score the newest label of every latent (or of `latents`) on held-out images."""
    reader = EvidenceReader(run.path)
    explanations = newest_explanations(run)
    wanted = set(explanations if latents is None else latents)
    with Ledger(run.ledger) as ledger:
        judge = _judge(run, reader, settings, ledger)
        run.remember("score-control" if control else "score", settings.recorded())
        return score_run(
            run.scores,
            reader,
            judge,
            [e for latent, e in explanations.items() if latent in wanted],
            control=control,
            concurrency=settings.concurrency,
            progress=progress,
        )


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
        status = reader.latents["status"]
        wanted = status.isin(["live", "dense"] if dense else ["live"])
        return [int(latent) for latent in np.flatnonzero(wanted)]
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


def _explainer(
    run: Run, reader: EvidenceReader, settings: ModelSettings, ledger: Ledger
) -> Explainer:
    if not settings.is_local:
        grid = (reader.info.grid[0], reader.info.grid[1]) if reader.info.grid else None
        return VlmExplainer(ChatModel(_client(settings), ledger), patch_grid=grid)
    from interp.local import LocalNamer

    eyes = local_eyes(run, settings)
    vocabulary = load_vocabulary(settings.vocabulary, eyes.clip.name)
    return LocalNamer(eyes, vocabulary, background(reader))


def _judge(run: Run, reader: EvidenceReader, settings: ModelSettings, ledger: Ledger) -> Judge:
    if not settings.is_local:
        return VlmJudge(ChatModel(_client(settings), ledger))
    from interp.local import LocalJudge

    return LocalJudge(local_eyes(run, settings), background(reader))


def background(reader: EvidenceReader) -> Iterator[Image.Image]:
    """An even sample of the explain side's images, the same whenever it is asked for."""
    examples = reader.examples
    silent = examples[(examples["side"] == "explain") & (examples["kind"] == "silent")]
    chosen = silent.drop_duplicates("image_id").sort_values("image_id")[:N_BACKGROUND]
    for values in chosen.itertuples(index=False):
        yield from read_images(reader.image, [Example(*values)]).values()


def local_eyes(run: Run, settings: ModelSettings) -> Eyes:
    """The local model's CLIP; in one process every stage sees with the same, each image once."""
    return _eyes(settings.clip or EmbeddingStore.open(run.store).info.clip, settings.device)


@functools.cache
def _eyes(clip: str, device: str) -> Eyes:
    from sae.clip import load_clip

    return Eyes(load_clip(clip, device))


def _client(settings: ModelSettings) -> ClientConfig:
    return ClientConfig(
        model=settings.model,
        base_url=settings.base_url,
        timeout=settings.timeout,
        deadline=settings.deadline,
        reasoning=settings.reasoning,
    )
