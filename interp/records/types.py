"""The types that cross borders between the rooms of `interp`.

An image is known by the hash of its content everywhere (`image_id`, 64 hex digits); `row` is only
its place in the store. Where a number cannot be given it is NaN here and `null` in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from interp.records.figure import Figure
from interp.records.nulls import NullTest
from sae.core.files import sha256_hex

Side = Literal["explain", "score", "select"]
"""What the explainer may see, what tests the label, what labels are chosen on (`--select`)."""

Kind = Literal["top", "quantile", "silent", "hard", "weak"]
"""Why an image was kept for a latent. `top` and `quantile` are its positives; `silent` and `hard`
leave it at 0; `weak` fire it least, where it is silent on too few."""

Status = Literal["live", "dead", "dense"]
"""`dead`: never active; `dense`: active on more than `CollectConfig.dense_above` of the tokens."""

TOO_FEW = "too_few_images"
"""Failure: the latent was not active, or silent, on enough images to be named or tested."""
UNREADABLE = "unreadable_images"
"""Failure: of enough images too many are gone, changed or unreadable; done again once they are
back."""
SIDES: tuple[Side, ...] = ("explain", "score")
SIDES_WITH_SELECT: tuple[Side, ...] = (*SIDES, "select")
KINDS: tuple[Kind, ...] = ("top", "quantile", "silent", "hard", "weak")
POSITIVE: tuple[Kind, ...] = ("top", "quantile")
BOUND_SHARE = 0.9
"""Share of a latent's rates in one domain from which on it is bound to it."""
N_BINS = 32
"""Bins of `LatentStats.hist`, equal in width over [0, max_act]."""


@dataclass(frozen=True)
class Example:
    """One image kept for one latent, on one side of the split."""

    latent: int
    side: Side
    kind: Kind
    rank: int
    """From 0. `top`: by activation within the side, over all domains. `quantile`: likewise within
    the sample. `hard`: the neighbours' strongest images first. `silent`: a fixed shuffle. `weak`:
    the least active first. The first few of the last three have the domain mix of the whole."""
    stratum: int
    """`quantile` only: 0 = weakest fifth of the sample, n_strata - 1 = strongest; otherwise -1."""
    row: int
    """Global row of the store."""
    image_id: str
    """sha256 of the file's content."""
    domain: str
    label: str
    """The image's class (its folder); "" when unknown. Never shown to a model."""
    path: str
    """Relative to the domain's root, posix."""
    act: float
    """The image's activation, of its tokens' as `CollectConfig.pool` says, in the SAE's units; 0
    for silent and hard."""
    heat: bytes | None = None
    """(t,) uint8 per patch in row-major order, 255 = this image's largest; None without patches."""
    peak: int = -1
    """Place of the most active patch in row-major order; -1 where none is active or known."""
    group: str = ""
    """`name_group` of the images that it belongs together with, near-duplicates or as the user
    said; "" for an image alone, and in older evidence."""

    @property
    def group_id(self) -> str:
        """The same for all images that belong together, and of no other."""
        return self.group or self.image_id

    @property
    def is_positive(self) -> bool:
        """Whether the image stands for what the latent answers to."""
        return self.kind in POSITIVE


@dataclass(frozen=True)
class LatentStats:
    """What is counted of one latent over all images of the store, both sides together."""

    latent: int
    status: Status
    n_active: int
    """Images on which any token is active."""
    frequency: float
    """n_active as a share of all images, in [0, 1]."""
    mean_act: float
    """Mean over the active images of the image's activation; NaN when dead."""
    max_act: float
    """0 when dead."""
    hist: tuple[int, ...]
    """(32,) active images per equal bin of act / max_act; the first bin is the weakest."""
    domain_rate: dict[str, float]
    """Share of the domain's images that are active, in [0, 1]; in the store's domain order."""
    sketch_share: float
    """Rate in the domain "sketch" (or else the first) over the sum of all domains' rates: .5 of two
    domains is no preference; NaN when dead."""
    class_entropy: float
    """Bits, of the active images' labels; 0 = one class only; NaN when dead or without labels."""
    top_classes: tuple[tuple[str, int], ...]
    """Up to 5 (label, active images), most frequent first; without the empty label."""
    token_frequency: float = math.nan
    """Share of the tokens on which it is active; NaN in evidence of before it was counted."""

    @property
    def domain_share(self) -> dict[str, float]:
        """By domain: its rate over the sum of all domains' rates. With n domains 1 / n is no
        preference; NaN when dead."""
        total = sum(self.domain_rate.values()) or math.nan
        return {name: rate / total for name, rate in self.domain_rate.items()}

    @property
    def bound_domain(self) -> str:
        """The one of several domains that has `BOUND_SHARE` of the latent's rates; "" for none."""
        shares = self.domain_share if len(self.domain_rate) > 1 else {}
        return next((name for name, share in shares.items() if share >= BOUND_SHARE), "")


@dataclass(frozen=True)
class Evidence:
    """All that is known of one latent."""

    stats: LatentStats
    examples: tuple[Example, ...]

    def of(self, side: Side, kind: Kind) -> tuple[Example, ...]:
        """The examples of one side and kind, by rank."""
        return tuple(e for e in self.examples if e.side == side and e.kind == kind)

    def positives(self, side: Side, kind: Kind) -> tuple[Example, ...]:
        """Those of `of` that may stand against the side's negatives.

        Where some of these are weak: the stronger half of each domain, all above its weak ones.
        """
        weak = self.of(side, "weak")
        floors = dict.fromkeys(sorted({e.domain for e in weak}), 0.0)
        for domain in floors:
            acts = [e.act for e in self.of(side, "quantile") if e.domain == domain]
            floors[domain] = max([e.act for e in weak if e.domain == domain] + _middle(acts))
        taken = {e.image_id for e in weak}
        clear = (e for e in self.of(side, kind) if e.act > floors.get(e.domain, -1.0))
        return tuple(e for e in clear if e.image_id not in taken)


def _middle(values: list[float]) -> list[float]:
    return sorted(values)[(len(values) - 1) // 2 :][:1]


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
    """0 to 100 as the model says, uncalibrated; None when not said."""
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

    def __post_init__(self) -> None:
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

    def __post_init__(self) -> None:
        for name in ("auroc", "auroc_low", "auroc_high", "auroc_easy", "auroc_hard"):
            _require_range(self, name, 0, 1)
        _require_range(self, "balanced_accuracy", 0, 1)
        _require_range(self, "spearman", -1, 1)
        for name in ("n_positive", "n_negative", "n_missing", "usd"):
            _require_range(self, name, 0)


def _require_range(record: object, name: str, low: float, high: float = math.inf) -> None:
    """A number that is missing, None or NaN, is never out of range."""
    value = getattr(record, name)
    slack = 1e-9  # of rounding
    if value is not None and (value < low - slack or value > high + slack):
        raise ValueError(f"{name} is {value}; it must be in {low}..{high}")


class ScoreLine(NamedTuple):
    """A line of scores.jsonl without its verdicts, which are most of it."""

    score: Score
    """Its `verdicts` are empty."""
    images: str
    """`digest_of` the ids of the images that tested the label."""
    span: tuple[int, int]
    """Where the line lies in the file: its first byte, and the one behind its last."""


class AnsweredBy(NamedTuple):
    """Who answered, and how asked: with the same of both an answer is not asked for again."""

    model: str
    """Id of a vision model, or "local" and the like."""
    prompt: str
    """Fingerprint of the prompt, its schema and the settings that change the answer."""
    server: str = ""
    """As in `Explanation`: the same name at another URL is another model."""


def digest_of(image_ids: Iterable[str]) -> str:
    """sha256 (64 hex digits) of a set of images, whatever their order."""
    return sha256_hex(" ".join(sorted(image_ids)).encode())
