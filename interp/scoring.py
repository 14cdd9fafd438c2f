"""A whole run of scoring: which labels are still to be tested, and what came out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from interp.control import shuffled
from interp.judge import Judge
from interp.questions import is_transient
from interp.records import Evidence, Example, Explanation, Score, from_json
from interp.sampling import SampleConfig, held_out, is_enough
from interp.schedule import CONCURRENCY, append_run, finished
from interp.score import score_latent
from sae.errors import UserError
from sae.files import sha256_hex
from sae.progress import Progress

MISSING_ALARM = 0.02
"""A run in which more than this share of the answers is missing is flagged."""
CONTROLS = ("", "shuffled")


class EvidenceSource(Protocol):
    """What is used of `EvidenceReader`."""

    def of(self, latent: int) -> Evidence: ...
    def image(self, example: Example) -> Image.Image: ...


@dataclass(frozen=True)
class ScoreSummary:
    """One scorer's results over a run: means over the latents that have a score."""

    scorer: str
    control: str
    n_scored: int
    n_failed: int
    n_images: int
    """Images judged."""
    n_missing: int
    missing_rate: float
    """n_missing as a share of n_images; NaN when nothing was judged."""
    missing_alarm: bool
    """More answers are missing than `MISSING_ALARM` allows: do not trust the figures."""
    auroc: float
    auroc_easy: float
    auroc_hard: float
    balanced_accuracy: float
    usd: float
    """NaN when a server did not say what it bills."""


def score_run(
    path: Path,
    source: EvidenceSource,
    judge: Judge,
    explanations: Iterable[Explanation],
    *,
    control: str = "",
    config: SampleConfig | None = None,
    concurrency: int = CONCURRENCY,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score every label and append to `path` (scores.jsonl) in the order of the latents.

    What stands there already, for the same label, scorer, prompt, control and test images, is not
    asked again unless it failed for a reason that waiting cures. `control="shuffled"` tests every
    label on another latent's images: the floor that a real score must clear.
    """
    if control not in CONTROLS:
        raise UserError(f"--control {control!r} is not known; choose one of: shuffled")
    config = config or SampleConfig()
    tests = sorted((e for e in explanations if e.label is not None), key=lambda e: e.latent)
    if control == "shuffled":
        status = {e.latent: source.of(e.latent).stats.status for e in tests}
        tests = shuffled(tests, status)
    done = {_identity(row) for row in finished(path) if not is_transient(row["failure"] or "")}

    def pending(test: Explanation) -> bool:
        sample = held_out(source.of(test.latent), config)
        images = (*sample.positives, *sample.negatives) if is_enough(sample, config) else ()
        return _wanted(test, images, judge, control) not in done

    async def work(test: Explanation) -> Score:
        evidence = source.of(test.latent)
        return await score_latent(evidence, test, judge, source.image, config, control)

    todo = [test for test in tests if not done or pending(test)]
    append_run(path, todo, work, concurrency=concurrency, progress=progress, opened=(judge,))
    return _summary_of_rows(finished(path), judge, control, tests)


def summarise(scores: Iterable[Score], scorer: str, control: str = "") -> ScoreSummary:
    """The last score of every latent under one scorer and control."""
    last = {s.latent: s for s in scores if s.model == scorer and s.control == control}
    scored = [score for score in last.values() if score.failure is None]
    n_images = sum(score.n_positive + score.n_negative for score in scored)
    n_missing = sum(score.n_missing for score in scored)
    rate = n_missing / n_images if n_images else math.nan
    return ScoreSummary(
        scorer=scorer,
        control=control,
        n_scored=len(scored),
        n_failed=len(last) - len(scored),
        n_images=n_images,
        n_missing=n_missing,
        missing_rate=rate,
        missing_alarm=rate > MISSING_ALARM,
        auroc=_mean([score.auroc for score in scored]),
        auroc_easy=_mean([score.auroc_easy for score in scored]),
        auroc_hard=_mean([score.auroc_hard for score in scored]),
        balanced_accuracy=_mean([score.balanced_accuracy for score in scored]),
        usd=sum(score.usd for score in last.values()),
    )


class _Identity(NamedTuple):
    """What makes two scores the same test, so that it is not run twice."""

    latent: int
    label: str
    explainer: str
    model: str
    prompt: str
    control: str
    images: str
    """Digest of the test images' ids."""


def _identity(row: Mapping[str, Any]) -> _Identity:
    return _Identity(
        latent=row["latent"],
        label=row["label"],
        explainer=row["explainer"],
        model=row["model"],
        prompt=row["prompt"],
        control=row.get("control", ""),
        images=_digest(verdict["image_id"] for verdict in row["verdicts"]),
    )


def _wanted(test: Explanation, images: Iterable[Example], judge: Judge, control: str) -> _Identity:
    assert test.label is not None
    return _Identity(
        latent=test.latent,
        label=test.label,
        explainer=test.model,
        model=judge.name,
        prompt=judge.prompt,
        control=control,
        images=_digest(example.image_id for example in images),
    )


def _digest(image_ids: Iterable[str]) -> str:
    return sha256_hex(" ".join(sorted(image_ids)).encode())


def _summary_of_rows(
    rows: Iterable[Mapping[str, Any]], judge: Judge, control: str, tests: Sequence[Explanation]
) -> ScoreSummary:
    """Over the latents of `tests`; the verdicts, most of a row, are not read."""
    latents = {test.latent for test in tests}
    bare = [
        from_json(Score, {**row, "verdicts": []})
        for row in rows
        if row["latent"] in latents and row["prompt"] == judge.prompt
    ]
    return summarise(bare, judge.name, control)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
