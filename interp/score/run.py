"""Labels and scores so far -> labels still to be tested; scores -> their summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from interp.llm.failures import Reason, commonest
from interp.llm.types import is_transient
from interp.pictures.cache import EvidenceSource
from interp.records.score_line import ScoreLine, digest_of
from interp.records.support import count_states, find_support
from interp.records.types import (
    TOO_FEW,
    UNREADABLE,
    AnsweredBy,
    Evidence,
    Explanation,
    Score,
    Status,
)
from interp.records.wording import GROUPED, SPEAKS_TO_JUDGE, WEAK_NEGATIVES
from interp.score.nulls.shuffle import shuffle_labels
from interp.score.sampling import SampleConfig, draw_sample, is_enough, looks_of
from interp.score.statistics.means import mean_interval
from sae.core.errors import UserError
from sae.core.shares import wilson_interval

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
    failures: dict[str, int]
    """How many failed, by kind."""
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
    reasons: tuple[Reason, ...] = ()
    """The commonest, of latents without a score or without some of the answers."""
    n_noted: int = 0
    """Scores with a note that the label speaks to the judge."""
    n_weak: int = 0
    """Scores with a note that some negatives are weak ones."""
    n_grouped: int = 0
    """Scores with a note that near-duplicates left them fewer images."""
    n_supported: int = 0
    """Labels that are `supported`, as are the next two; none where no null was graded."""
    n_undecided: int = 0
    n_unsupported: int = 0
    supported: float = math.nan
    """Share of the three that is supported, and its 95% interval (Wilson)."""
    supported_low: float = math.nan
    supported_high: float = math.nan
    n_others: int = 0
    """Fewest other labels that one was ranked among."""
    nulls: tuple[tuple[str, float], ...] = ()
    """Mean AUROC of each kind of null, by name."""
    auroc_low: float = math.nan
    auroc_high: float = math.nan
    """95% interval of the mean AUROC, by a bootstrap over latents."""
    auroc_strong: float = math.nan
    rho: float = math.nan
    rho_low: float = math.nan
    rho_high: float = math.nan
    """95% interval of the mean rho, likewise."""
    precision_at_base_rate: float = math.nan
    stopped: dict[str, int] = field(default_factory=dict)
    """Of adaptive scores, how many ended for each reason; {} of others."""
    looks: dict[int, int] = field(default_factory=dict)
    """How many ended at each look."""


def pending_tests(
    known: Iterable[ScoreLine],
    source: EvidenceSource,
    by: AnsweredBy,
    explanations: Iterable[Explanation],
    control: str = "",
    config: SampleConfig | None = None,
    *,
    retry_failed: bool = False,
    lacks_nulls: Callable[[Score], bool] = lambda score: False,
) -> list[Explanation]:
    """The labels that are still to be tested, by latent; of a control with the labels as dealt.

    What is known already, for the same label, scorer, prompt, control and test images, is not asked
    again unless images could not be read, it failed for a reason that waiting cures, or the score
    `lacks_nulls`; with `retry_failed` also where answers are missing. Raises
    `UserError` for an unknown control.
    """
    if control not in CONTROLS:
        raise UserError(f"--control {control!r} is not known; choose one of: shuffled")
    tests = sorted((e for e in explanations if e.label is not None), key=lambda e: e.latent)
    done = {
        _test_of(line)
        for line in known
        if not _is_pending(line.score, retry_failed)
        and (line.score.failure or not lacks_nulls(line.score))
    }
    if not done and not control:
        return tests
    config = config or SampleConfig()
    cases = {e.latent: _case(source.of(e.latent), config) for e in tests}
    if control:
        tests = shuffle_labels(tests, {latent: case.status for latent, case in cases.items()})
    return [e for e in tests if not done & _tests(e, cases[e.latent], by, control)]


def digest_sample(evidence: Evidence, config: SampleConfig) -> str:
    """`digest_of` the images that test a label of this latent; of none where they are too few."""
    sample = draw_sample(evidence, config)
    images = (*sample.positives, *sample.negatives) if is_enough(sample, config) else ()
    return digest_of(example.image_id for example in images)


def n_questions(
    evidence: Evidence, config: SampleConfig | None = None, *, at_least: bool = False
) -> int:
    """Grids that test one label of this latent; 0 where there are too few images.

    Of an adaptive test those of all looks, or those of the first one: it has `at_least` these.
    """
    config = config or SampleConfig()
    looks = looks_of(draw_sample(evidence, config), config, evidence.stats.latent)
    return sum(len(look.grids) for look in (looks[:1] if at_least else looks))


def summarise(
    scores: Iterable[Score],
    by: AnsweredBy,
    control: str,
    latents: Container[int],
    explanations: Mapping[int, Explanation] | None = None,
    *,
    is_adaptive: bool = False,
) -> ScoreSummary:
    """The last score of each of `latents` by one scorer and prompt under one control.

    Of tests that are adaptive, or of those that are not.

    `explanations`, the newest of each latent, tell which labels are supported.
    """
    wanted = (s for s in scores if s.control == control and (s.model, s.prompt, s.server) == by)
    wanted = (s for s in wanted if bool(s.stopped) == is_adaptive)
    last = {s.latent: s for s in wanted if s.latent in latents}
    scored = [score for score in last.values() if score.failure is None]
    asked = [score for score in last.values() if score.failure != TOO_FEW]
    n_images = sum(score.n_positive + score.n_negative for score in asked)
    n_missing = sum(score.n_missing for score in asked)
    rate = n_missing / n_images if n_images else math.nan
    of_auroc = mean_interval(score.auroc for score in scored)
    of_rho = mean_interval(score.rho for score in scored)
    return ScoreSummary(
        scorer=by.model,
        control=control,
        n_scored=len(scored),
        n_failed=len(last) - len(scored),
        failures=dict(Counter(s.failure for s in last.values() if s.failure is not None)),
        n_images=n_images,
        n_missing=n_missing,
        missing_rate=rate,
        missing_alarm=rate > MISSING_ALARM,
        auroc=_mean([score.auroc for score in scored]),
        auroc_easy=_mean([score.auroc_easy for score in scored]),
        auroc_hard=_mean([score.auroc_hard for score in scored]),
        balanced_accuracy=_mean([score.balanced_accuracy for score in scored]),
        usd=sum(score.usd for score in last.values()),
        reasons=tuple(commonest(_reasons(last.values()))),
        n_noted=sum(SPEAKS_TO_JUDGE in score.note for score in scored),
        n_weak=sum(WEAK_NEGATIVES in score.note for score in scored),
        n_grouped=sum(GROUPED in score.note for score in scored),
        **_support(last, explanations or {}, control),
        auroc_low=of_auroc.low,
        auroc_high=of_auroc.high,
        auroc_strong=_mean([score.auroc_strong for score in scored]),
        rho=_mean([score.rho for score in scored]),
        rho_low=of_rho.low,
        rho_high=of_rho.high,
        precision_at_base_rate=_mean([score.precision_at_base_rate for score in scored]),
        stopped=dict(Counter(s.stopped for s in scored)) if is_adaptive else {},
        looks=dict(sorted(Counter(s.looks for s in scored).items())) if is_adaptive else {},
    )


def _support(
    last: Mapping[int, Score], explanations: Mapping[int, Explanation], control: str
) -> dict[str, Any]:
    """What a summary says of nulls and of what they support; nothing where none was graded."""
    found = find_support(explanations, last.values(), control).values()
    if not found:
        return {}
    counts = count_states(found)
    kinds: dict[str, list[float]] = {}
    for null in (null for score in last.values() if score.nulls for null in score.nulls.nulls):
        kinds.setdefault(null.kind, []).append(null.auroc)
    interval = wilson_interval(counts["supported"], len(found))
    return {
        **{f"n_{state}": n for state, n in counts.items()},
        "supported": counts["supported"] / len(found),
        "supported_low": interval.low,
        "supported_high": interval.high,
        "n_others": min((s.n_others for s in found if not math.isnan(s.p)), default=0),
        "nulls": tuple((kind, _mean(areas)) for kind, areas in sorted(kinds.items())),
    }


def _reasons(scores: Iterable[Score]) -> Iterator[tuple[str, str]]:
    for score in scores:
        if score.failure is not None or score.n_missing:
            yield score.failure or "missing answers", score.reason


class _Test(NamedTuple):
    """What makes two scores the same test, so that it is not run twice."""

    latent: int
    label: str | None
    explainer: str
    by: AnsweredBy
    control: str
    images: str
    is_adaptive: bool


class _Case(NamedTuple):
    """What is needed of a latent's evidence to know whether its test is done."""

    status: Status
    ends: tuple[str, ...]
    """Digests of what is judged by each look of the test; a done test ended at one of them."""
    is_adaptive: bool


def _is_pending(score: Score, retry_failed: bool) -> bool:
    waits = score.failure == UNREADABLE or is_transient(score.failure or "")
    return waits or (retry_failed and score.n_missing > 0)


def _test_of(line: ScoreLine) -> _Test:
    score = line.score
    by = AnsweredBy(score.model, score.prompt, score.server)
    return _Test(
        score.latent,
        score.label,
        score.explainer,
        by,
        score.control,
        line.images,
        bool(score.stopped),
    )


def _case(evidence: Evidence, config: SampleConfig) -> _Case:
    looks = looks_of(draw_sample(evidence, config), config, evidence.stats.latent)
    judged: list[str] = []
    digests = []
    for look in looks:
        judged += [example.image_id for grid in look.grids for example in grid]
        digests.append(digest_of(judged))
    return _Case(evidence.stats.status, tuple(digests or [digest_of(())]), bool(config.steps))


def _tests(explanation: Explanation, case: _Case, by: AnsweredBy, control: str) -> set[_Test]:
    label, explainer = explanation.label, explanation.model
    return {
        _Test(explanation.latent, label, explainer, by, control, images, case.is_adaptive)
        for images in case.ends
    }


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
