"""What editing a latent does to the similarity of images and its label: a line of causal.jsonl."""

from __future__ import annotations

import math
from dataclasses import dataclass

from interp.records.figure import Figure


@dataclass(frozen=True)
class CausalEffect:
    """Of one latent and the label that it had then.

    Effects are changes of CLIP similarity to the label's text as the label says they should be,
    less those under control latents, less the same of control texts; in standard deviations of the
    text's similarity over a sample of images.
    """

    latent: int
    label: str
    clip: str
    """Name of the CLIP that was edited."""
    method: str
    """Fingerprint of the settings that change the figures."""
    n_active: int
    """Held-out images of the latent that it was taken out of."""
    n_silent: int
    """Held-out images without it that it was put into, as strong as it is on the others."""
    n_controls: int
    """Other latents that were edited by the same length on the same images."""
    n_texts: int
    """Other texts whose change was measured: labels of other latents, or words."""
    ablate: Figure
    ablate_low: Figure
    ablate_high: Figure
    """Bounds of the 95% interval."""
    boost: Figure
    boost_low: Figure
    boost_high: Figure
    failure: str | None
    """Why there are no figures (then they are NaN); else None."""
    control: str = ""
    """"" for the latent's own label; "shuffled" when another latent's label was tested here."""

    @property
    def shown_by(self) -> str:
        """Which edit shows an effect, its interval above 0: "both", "ablation", "boost" or "none";
        "" without figures."""
        if self.failure is not None:
            return ""
        shown = (self.ablate_low > 0, self.boost_low > 0)
        return {(True, True): "both", (True, False): "ablation", (False, True): "boost"}.get(
            shown, "none"
        )

    @property
    def changes_nothing(self) -> bool:
        """Whether no edit changed any similarity at all: nothing behind the layer reads it."""
        ablated = (self.ablate, self.ablate_low, self.ablate_high)
        boosted = (self.boost, self.boost_low, self.boost_high)
        return not any((*ablated, *boosted))

    def in_words(self) -> str:
        """One or two sentences for a card; "" without figures."""
        found = {
            "both": "The latent does what its label says",
            "ablation": "The latent does what its label says where it is taken out",
            "boost": "The latent does what its label says where it is put in",
            "none": "No effect on the label is shown",
        }.get(self.shown_by)
        if found is None:
            return ""
        return (
            f"{found}: taken out of {self.n_active} of its images, it moves them away from "
            f"“{self.label}” by {_written(self.ablate, self.ablate_low, self.ablate_high)}; put "
            f"into {self.n_silent} others, towards it by "
            f"{_written(self.boost, self.boost_low, self.boost_high)}. Counted in standard "
            f"deviations of CLIP similarity, beyond what {self.n_controls} other latents of equal "
            f"strength do, and beyond {self.n_texts} other texts."
        )


def no_effect(
    latent: int, label: str, clip: str, method: str, failure: str, control: str
) -> CausalEffect:
    """A record without figures, and why."""
    nothing = (math.nan,) * 6
    return CausalEffect(latent, label, clip, method, 0, 0, 0, 0, *nothing, failure, control)


def _written(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
