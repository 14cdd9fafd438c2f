"""The types that cross borders between the rooms of `interp`.

An image is known by the hash of its content everywhere (`image_id`, 64 hex digits); `row` is only
its place in the store. Where a number cannot be given it is NaN here and `null` in JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from interp.records.evidence import (
    BOUND_SHARE,
    KINDS,
    N_BINS,
    POSITIVE,
    SIDES,
    SIDES_WITH_SELECT,
    Evidence,
    Example,
    HeldOut,
    Kind,
    LatentStats,
    Side,
    Status,
)
from interp.records.figure import Figure
from interp.records.nulls import NullTest

__all__ = [
    "ALL_IMAGES",
    "BOUND_SHARE",
    "DECIDED",
    "FAILED",
    "KINDS",
    "LEFT_OPEN",
    "MISSING",
    "NO_MORE",
    "N_BINS",
    "POSITIVE",
    "SIDES",
    "SIDES_WITH_SELECT",
    "TOO_FEW",
    "UNREADABLE",
    "AnsweredBy",
    "Compared",
    "Evidence",
    "Example",
    "Explanation",
    "HeldOut",
    "Kind",
    "LatentStats",
    "Score",
    "Side",
    "Status",
    "Verdict",
]

TOO_FEW = "too_few_images"
"""Failure: the latent was not active, or silent, on enough images to be named or tested."""
UNREADABLE = "unreadable_images"
"""Failure: of enough images too many are gone, changed or unreadable; done again once they are
back."""
DECIDED, LEFT_OPEN = "decided", "left open"
ALL_IMAGES, NO_MORE, FAILED = "all images", "no more images", "failed"
"""Why an adaptive test ended: its intervals leave out chance; they hardly would with all images;
all images that were wanted are judged; all that there are; there is no score."""
MISSING = "missing_answers"
"""Failure: more than a tenth of the images that test a label have no usable answer, or, of an
adaptive test, next to surely would have none."""


@dataclass(frozen=True)
class Compared:
    """One of several labels of a latent, and how it did on images of the side select."""

    label: str
    auroc: Figure
    """NaN without one: too few images, or too few answers."""
    gap: Figure
    """Mean grade of the active images above that of the silent ones, -100 to 100; NaN likewise."""


@dataclass(frozen=True)
class Explanation:
    """What one explainer says of one latent. `label is None` exactly when `failure` says why."""

    latent: int
    label: str | None
    second_label: str | None
    """A second thing the latent answers to, when the explainer saw two; else None."""
    description: str
    """One sentence; "" when there is none."""
    verdict: str
    """The explainer's own finding in one word, e.g. "single", "several", "unclear"."""
    level: str
    """What kind of thing is named, e.g. "object", "part", "texture"; "" when not said."""
    confidence: int | None
    """0 to 100: a vision model's own, uncalibrated; `local`: halves that agree. None: not said."""
    failure: str | None
    lint: tuple[str, ...]
    """Remarks of the label linter, as codes."""
    model: str
    provider: str | None
    prompt: str
    """Fingerprint of the prompt, its schema and the settings that change the answer."""
    codes: dict[str, str]
    """Letter on the grid -> image_id: every image that was shown, positives and negatives."""
    candidates: tuple[str, ...]
    """Labels that were considered, best first."""
    calls: tuple[str, ...]
    """Keys in the ledger."""
    usd: Figure
    reason: str = ""
    """What the server, or the reader of its answer, said about the failure; "" without one."""
    server: str = ""
    """URL of the model's server, without login and query; "" for OpenRouter and this machine."""
    domain: str = ""
    """The domain that the latent is bound to, where the explainer says that it is to one."""
    provenance: str = ""
    """How the label was found, for people: no judge is told. "" where the other fields say it."""
    explained_on: str = ""
    """The one domain whose images were shown; "" for all."""
    chosen_among: tuple[Compared, ...] = ()
    """The labels that this one was chosen among (`--best-of`), itself too, in the order in which
    they were found; () where there was no choice."""
    chosen_on: tuple[str, ...] = ()
    """image_ids of the side select that they were compared on."""

    def __post_init__(self) -> None:
        if (self.label is None) != (self.failure is not None):
            raise ValueError(
                f"latent {self.latent}: label {self.label!r} with failure {self.failure!r}; "
                "exactly one of them must be None"
            )
        _require_range(self, "confidence", 0, 100)
        _require_range(self, "usd", 0)

    @classmethod
    def failed(
        cls,
        latent: int,
        by: AnsweredBy,
        failure: str,
        codes: dict[str, str],
        calls: tuple[str, ...] = (),
        usd: float = 0.0,
        reason: str = "",
    ) -> Explanation:
        """No label, and why; `codes`, `calls`, `usd` and `reason` as in the fields."""
        return cls(
            latent=latent,
            label=None,
            second_label=None,
            description="",
            verdict="",
            level="",
            confidence=None,
            failure=failure,
            lint=(),
            model=by.model,
            provider=None,
            prompt=by.prompt,
            codes=codes,
            candidates=(),
            calls=calls,
            usd=usd,
            reason=reason,
            server=by.server,
        )


@dataclass(frozen=True)
class Verdict:
    """What the scorer answered about one held-out image, beside the truth."""

    image_id: str
    row: int
    truth: bool
    """Whether the image is a positive: the latent is active on it, and not at its weakest."""
    act: Figure
    stratum: int
    """As in `Example`."""
    kind: Kind
    domain: str
    score: Figure | None
    """0 (label does not fit) to 100 (fits); None when no usable answer came."""
    call: int = -1
    """Place, from 0, of the question that it was part of; -1 in older files."""
    weight: Figure = math.nan
    """Held-out images that it stands for; NaN where that is not known."""

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 100:  # a million are read of a run
            _require_range(self, "score", 0, 100)


@dataclass(frozen=True)
class Score:
    """How well a label tells held-out active images from silent (or the weakest) ones."""

    latent: int
    label: str
    model: str
    """The scorer."""
    explainer: str
    prompt: str
    """Fingerprint of the scorer's prompt and its schema; "" for a local scorer."""
    verdicts: tuple[Verdict, ...]
    auroc: Figure
    """0.5 is chance, 1 is perfect; a missing answer counts 1/2 in each of its pairs."""
    auroc_low: Figure
    auroc_high: Figure
    """Bounds of the 95% interval."""
    auroc_easy: Figure
    """Against `silent` images only: is the topic right?"""
    auroc_hard: Figure
    """Against `hard` images only: is it specific?"""
    balanced_accuracy: Figure
    """At a fixed score of 50; missing answers are wrong."""
    spearman: Figure
    """Rank correlation of score and activation among the positives, -1 to 1."""
    n_positive: int
    n_negative: int
    n_missing: int
    """Images without a usable answer."""
    failure: str | None
    """Why there is no score (then the figures are NaN); else None."""
    calls: tuple[str, ...]
    usd: Figure
    control: str = ""
    """"" for the latent's own label; "shuffled" when another latent's label was tested here."""
    reason: str = ""
    """What was said about most of the answers that are missing; "" where none is."""
    note: str = ""
    """Why the score may say little: a label that tells the judge what to answer, negatives on which
    the latent is weakly active; else ""."""
    server: str = ""
    """Of the scorer, as in `Explanation`."""
    auroc_hard_low: Figure = math.nan
    auroc_hard_high: Figure = math.nan
    """Bounds of its 95% interval; NaN in scores of before it was kept."""
    nulls: NullTest | None = None
    """What labels that say nothing reach on the same images; None where none was graded."""
    pairs: str = ""
    """Pairs that the areas count: "all", or "within calls" where the judge's calls differ in level;
    "" without figures and in older files."""
    auroc_strong: Figure = math.nan
    """Of the positives of the strongest two fifths, against all negatives."""
    auroc_weak: Figure = math.nan
    """Of those of the weakest fifth."""
    rho: Figure = math.nan
    """Correlation of score and activation over all held-out images, -1 to 1."""
    rho_low: Figure = math.nan
    rho_high: Figure = math.nan
    """Bounds of the 95% interval."""
    precision_at_base_rate: Figure = math.nan
    """Of the held-out images that would be scored 50 or more, the share that is active."""
    precision_low: Figure = math.nan
    precision_high: Figure = math.nan
    """Bounds of the 95% interval."""
    base_rate: Figure = math.nan
    """Share of the held-out images that is active, of the domains that the test looked at."""
    explained_on: str = ""
    """Of the label, as in `Explanation`."""
    scored_on: str = ""
    """The one domain whose images tested it; "" for all."""
    stopped: str = ""
    """Why an adaptive test ended: "decided", "all images", "no more images" or "failed"; "" of a
    fixed one."""
    looks: int = 0
    """How often an adaptive test was looked at; 0 of a fixed one."""
    most_looks: int = 0
    """How often it would have been at most."""
    rho_by_look: tuple[Figure, ...] = ()
    """`rho` after each look, on the images that were judged by then; () of a fixed test."""
    level: Figure = 0.95
    """Of each interval of this score. An adaptive test has wider ones, more at its first looks, so
    that all looks of a test together leave out the truth in 5% of the tests."""

    def __post_init__(self) -> None:
        areas = (
            "auroc_low",
            "auroc_high",
            "auroc_easy",
            "auroc_hard",
            "auroc_strong",
            "auroc_weak",
        )
        for name in ("auroc", *areas):
            _require_range(self, name, 0, 1)
        _require_range(self, "balanced_accuracy", 0, 1)
        for name in ("spearman", "rho", "rho_low", "rho_high"):
            _require_range(self, name, -1, 1)
        for name in (
            "level",
            "precision_at_base_rate",
            "precision_low",
            "precision_high",
            "base_rate",
        ):
            _require_range(self, name, 0, 1)
        for name in ("n_positive", "n_negative", "n_missing", "usd"):
            _require_range(self, name, 0)


def _require_range(record: object, name: str, low: float, high: float = math.inf) -> None:
    """A number that is missing, None or NaN, is never out of range."""
    value = getattr(record, name)
    slack = 1e-9  # of rounding
    if value is not None and (value < low - slack or value > high + slack):
        raise ValueError(f"{name} is {value}; it must be in {low}..{high}")


class AnsweredBy(NamedTuple):
    """Who answered, and how asked: with the same of both an answer is not asked for again."""

    model: str
    """Id of a vision model, or "local" and the like."""
    prompt: str
    """Fingerprint of the prompt, its schema and the settings that change the answer."""
    server: str = ""
    """As in `Explanation`: the same name at another URL is another model."""
