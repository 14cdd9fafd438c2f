"""What `collect` keeps of each latent: its statistics, and images of both sides of the split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Side = Literal["explain", "score", "select"]
"""What the explainer may see, what tests the label, what labels are chosen on (`--select`)."""

Kind = Literal["top", "quantile", "silent", "hard", "weak"]
"""Why an image was kept for a latent. `top` and `quantile` are its positives; `silent` and `hard`
leave it at 0; `weak` fire it least, where it is silent on too few."""

Status = Literal["live", "dead", "dense"]
"""`dead`: never active; `dense`: active on more than `CollectConfig.dense_above` of the tokens."""

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


class HeldOut(NamedTuple):
    """Images of one domain on the side "score"."""

    domain: str
    active: int
    silent: int


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
    held_out: tuple[HeldOut, ...] = ()
    """The score side by domain, in the store's order; () in evidence of before it was counted."""

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
