"""What becomes of a latent's labels in another domain: explained on one, scored on the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from interp.records.figure import Figure

TransferClass = Literal["shape", "domain-bound", "one way", "undecided"]
"""`shape`: the labels found in either domain hold in both. `domain-bound`: the latent is active in
one domain only, or no label holds outside the domain that it was found in. `one way`: the label
found in one domain holds in both, that of the other does not. `undecided`: the rest."""
CLASSES: tuple[TransferClass, ...] = ("shape", "domain-bound", "one way", "undecided")

Why = Literal["", "rate", "score", "no label holds", "intervals", "too few images", "not asked"]
"""`rate` and `score`: by what it is domain-bound; the others: why it is undecided."""
CELLS = ("aa", "ab", "ba", "bb")
"""The four cells: explained on the first letter's domain, scored on the second's."""

HOLDS_ABOVE = 0.6
"""A label holds in a domain where its AUROC's interval lies above this: more than chance."""


class Cell(NamedTuple):
    """One of the four: NaN where there is no score."""

    auroc: Figure = math.nan
    low: Figure = math.nan
    high: Figure = math.nan


@dataclass(frozen=True)
class Transfer:
    """The 2x2 of one latent between the domains a and b."""

    latent: int
    domain_a: str
    domain_b: str
    kind: TransferClass
    why: Why
    only: str
    """The domain that it is bound to, or whose label holds in both; "" for none or for each."""
    label_a: str
    """Found on images of a; "" for none."""
    label_b: str
    share_a: Figure
    """Rate in a over the sum of both domains' rates; NaN when active in neither."""
    cells: tuple[Cell, Cell, Cell, Cell]
    """As in `CELLS`."""

    def words(self) -> str:
        """For a person, on the card of the latent."""
        a, b = plural(self.domain_a), plural(self.domain_b)
        only = plural(self.only) if self.only else ""
        other = b if self.only == self.domain_a else a
        said = {
            "shape": f"holds in {a} and {b}",
            "domain-bound": {
                "rate": f"active on {only}, hardly on {other}",
                "score": f"the label found in {only} holds in {only} only"
                if only
                else f"the labels found in {a} and in {b} hold in their own domain only",
            }.get(self.why, ""),
            "one way": f"the label found in {only} holds in {other} too, not the other way round",
            "undecided": {
                "no label holds": "no label holds in the domain that it was found in",
                "intervals": "the intervals leave it open",
                "too few images": f"too few images in {a} or {b}",
                "not asked": "not asked yet",
            }.get(self.why, ""),
        }
        return f"{self.kind}: {said[self.kind]}"


_MEDIA = {"sketch": "sketches", "photo": "photos", "drawing": "drawings", "painting": "paintings"}


def plural(domain: str) -> str:
    """A domain's images in words."""
    return _MEDIA.get(domain.lower(), f"{domain} images")
