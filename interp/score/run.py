"""A whole run of scoring: which labels are still to be tested, and what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from interp.llm.scheduler import append_run
from interp.llm.types import CONCURRENCY, Width, is_transient
from interp.pictures.cache import EvidenceSource
from interp.records.codec import from_json
from interp.records.types import Evidence, Explanation, Score, Status
from interp.score.judge import Judge
from interp.score.latent import TOO_FEW, score_latent
from interp.score.nulls import shuffled
from interp.score.sampling import SampleConfig, held_out, is_enough, n_grids
from sae.core.errors import UserError
from sae.core.files import read_jsonl, sha256_hex

MISSING_ALARM = 0.02
"""A run in which more than this share of the answers is missing is flagged."""
CONTROLS = ("", "shuffled")


@dataclass(frozen=True)
class ScoreSummary:
    """One scorer's results over a run: means over the latents that have a score."""

    scorer: str
    control: str
    n_scored: int
    n_failed: int
    n_images: int
    """Images that the judge was asked about."""
    n_missing: int
    """Those of them without a usable answer; also where one that waiting would bring is missing,
    and with it the score."""
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
    concurrency: Width = CONCURRENCY,
    on_record: Callable[[Score], None] | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    opened: Iterable[object] = (),
) -> ScoreSummary:
    """Score every label and append to `path` (scores.jsonl) in the order of the latents.

    What is done is skipped (`pending_tests`); of the rest at most `limit` are scored.
    `control="shuffled"` tests every label on another latent's images: the floor that a real score
    must clear. `on_record`, `opened`: see `append_run`.
    """
    config = config or SampleConfig()
    explanations = list(explanations)
    who = (judge.name, judge.prompt)
    todo = pending_tests(
        path, source, *who, explanations, control, config, retry_failed=retry_failed
    )

    async def work(test: Explanation) -> Score:
        evidence = source.of(test.latent)
        return await score_latent(evidence, test, judge, source.image, config, control)

    append_run(
        path,
        todo[:limit],
        work,
        concurrency=concurrency,
        on_record=on_record,
        opened=(judge, *opened),
    )
    return stored_summary(path, *who, control, explanations)


def pending_tests(
    path: Path,
    source: EvidenceSource,
    judge_name: str,
    judge_prompt: str,
    explanations: Iterable[Explanation],
    control: str = "",
    config: SampleConfig | None = None,
    *,
    retry_failed: bool = False,
) -> list[Explanation]:
    """The labels that are still to be tested, by latent; of a control with the labels as dealt.

    What stands in `path` already, for the same label, scorer, prompt, control and test images, is
    not asked again unless it failed for a reason that waiting cures; with `retry_failed` also where
    answers are missing. Raises `UserError` for a control that is not known.
    """
    if control not in CONTROLS:
        raise UserError(f"--control {control!r} is not known; choose one of: shuffled")
    tests = sorted((e for e in explanations if e.label is not None), key=lambda e: e.latent)
    done = {_identity(row) for row in read_jsonl(path) if not _to_do_again(row, retry_failed)}
    if not done and not control:
        return tests
    config = config or SampleConfig()
    cases = {e.latent: _case(source.of(e.latent), config) for e in tests}
    if control:
        tests = shuffled(tests, {latent: case.status for latent, case in cases.items()})
    wanted = [_wanted(e, cases[e.latent], (judge_name, judge_prompt, control)) for e in tests]
    return [test for test, identity in zip(tests, wanted, strict=True) if identity not in done]


def n_questions(evidence: Evidence, config: SampleConfig | None = None) -> int:
    """Grids that test one label of this latent; 0 where there are too few images."""
    config = config or SampleConfig()
    sample = held_out(evidence, config)
    n_images = len(sample.positives) + len(sample.negatives)
    return n_grids(n_images, config.n_tiles) if is_enough(sample, config) else 0


def stored_summary(
    path: Path,
    judge_name: str,
    judge_prompt: str,
    control: str,
    explanations: Iterable[Explanation],
) -> ScoreSummary:
    """What `path` holds of the labelled latents; the verdicts, most of a row, are not looked at."""
    latents = {e.latent for e in explanations if e.label is not None}
    bare = [
        from_json(Score, {**row, "verdicts": []})
        for row in read_jsonl(path)
        if row["latent"] in latents and row["prompt"] == judge_prompt
    ]
    return summarise(bare, judge_name, control)


def summarise(scores: Iterable[Score], scorer: str, control: str = "") -> ScoreSummary:
    """The last score of every latent under one scorer and control."""
    last = {s.latent: s for s in scores if s.model == scorer and s.control == control}
    scored = [score for score in last.values() if score.failure is None]
    asked = [score for score in last.values() if score.failure != TOO_FEW]
    n_images = sum(score.n_positive + score.n_negative for score in asked)
    n_missing = sum(score.n_missing for score in asked)
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


class _Case(NamedTuple):
    """What is needed of a latent's evidence to know whether its test is done."""

    status: Status
    images: str


def _to_do_again(row: Mapping[str, Any], retry_failed: bool) -> bool:
    return is_transient(row["failure"] or "") or (retry_failed and row["n_missing"] > 0)


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


def _case(evidence: Evidence, config: SampleConfig) -> _Case:
    sample = held_out(evidence, config)
    images = (*sample.positives, *sample.negatives) if is_enough(sample, config) else ()
    return _Case(evidence.stats.status, _digest(example.image_id for example in images))


def _wanted(test: Explanation, case: _Case, judged: tuple[str, str, str]) -> _Identity:
    """`judged`: the judge's name and prompt, and the control."""
    assert test.label is not None
    return _Identity(test.latent, test.label, test.model, *judged, case.images)


def _digest(image_ids: Iterable[str]) -> str:
    return sha256_hex(" ".join(sorted(image_ids)).encode())


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
