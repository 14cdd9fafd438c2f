"""What labels that say nothing of a latent reach on the images of its label's test: the record."""

from __future__ import annotations

from dataclasses import dataclass

from interp.records.figure import Figure

FOIL_SHARE = 0.2
"""Of the latents, whose questions to a paid judge carry foils."""
BESIDE = "-foils"
"""What the stage of a question with foils ends in, in the ledger."""
FREE, FOILS, SAMPLE, NONE = "free", "foils", "sample", "none"
"""How nulls were graded: by a judge that costs nothing, thousands of them; some in the same call as
the label; some in calls of their own on a share of the latents; not at all."""


@dataclass(frozen=True)
class Null:
    """One label that says nothing of the latent, graded on the images that tested its label."""

    kind: str
    """`generic`, `domain`, `class` (the latent's commonest), `shuffled` (of other latents) or
    `word`."""
    label: str
    """What the judge was told; several, whose grades are averaged, are parted by " | "."""
    auroc: Figure
    gain: Figure
    """AUROC of the latent's label less this one's."""
    gain_low: Figure
    gain_high: Figure
    """Bounds of its 95% interval, paired on the images."""


@dataclass(frozen=True)
class NullTest:
    """A label against labels that say nothing, on the same images."""

    how: str
    """`free`, `foils` or `sample`; see `interp score --nulls`."""
    nulls: tuple[Null, ...]
    n_others: int = 0
    """Other words and labels that were graded too, none of them near in meaning; free judges only:
    elsewhere the foils of all latents stand in their place."""
    n_reached: int = 0
    """Those of them whose AUROC is as high as the label's, or higher."""
    calls: tuple[str, ...] = ()
    """Keys in the ledger, of calls of their own."""
    usd: Figure = 0.0
    """What those cost; it is in the score's `usd` too."""
    prompt: str = ""
    """Of foils: fingerprint of the question in which they were graded with the label."""

    @property
    def best(self) -> Null | None:
        """The one that scores highest; of equal ones the first."""
        return max(self.nulls, key=lambda null: null.auroc, default=None)
