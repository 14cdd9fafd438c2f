"""A run -> the latents that are like one of it, as the gallery's card has them, with a picture."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from interp.records.wording import cut_at_word, marked_label
from interp.report.figures import fixed, percent
from interp.report.gallery.related import Related, find_related
from interp.report.single.pictures import read_small
from interp.run.decoder import read_decoder
from interp.run.run import Run
from interp.run.verdicts import Review, fresh_reviews

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_LETTERS = 80
"""Of a label."""


class Relative(NamedTuple):
    """A latent that is like another."""

    latent: int
    name: str
    """Its label, a person's where there is one; "" without any."""
    fact: str
    """How like it is, and its score."""


Kinds = list[tuple[str, list[Relative]]]
"""Title, and the latents under it."""


class RelativeReader:
    """Reads what is like one latent after another; all are compared when the first is asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def of(self, latent: int) -> Kinds:
        """Nearest first; a kind without any is left out."""
        related = self._related
        cosine = related.cosine[latent] if related.cosine else []
        found: list[tuple[str, list[tuple[int, str]]]] = [
            ("Nearest directions", [(int(n or 0), f"cosine {fixed(c or 0.0)}") for n, c in cosine]),
            (
                "On the same images",
                [
                    (int(n or 0), f"{percent(share or 0.0)} in common")
                    for n, share in related.together[latent]
                ],
            ),
            ("Of the same label", [(n, "") for n in related.same[latent]]),
        ]
        return [(title, [self._one(n, how) for n, how in of]) for title, of in found if of]

    def pictures(self, latents: Iterable[int]) -> dict[int, Image]:
        """The strongest image of each latent, where it has one that can be read."""
        tops = {n: self.run.evidence.of(n).of("explain", "top") for n in latents}
        small = read_small(self.run.evidence, {str(n): top[0] for n, top in tops.items() if top})
        return {int(n): image for n, image in small.items()}

    def _one(self, latent: int, how: str) -> Relative:
        said, score = self.run.results.explanation(latent), self.run.results.score(latent)
        review = self._reviews.get(latent)
        name = (review.better if review else "") or marked_label(said)
        tested = f"AUROC {fixed(score.auroc)}" if score and not score.failure else ""
        fact = " · ".join(filter(None, (how, tested)))
        return Relative(latent, cut_at_word(name or "", MOST_LETTERS), fact)

    @cached_property
    def _related(self) -> Related:
        said = self.run.results.newest_explanations()
        labels = {latent: one.label for latent, one in said.items()}
        return find_related(self.run.evidence, read_decoder(self.run), labels)

    @cached_property
    def _reviews(self) -> dict[int, Review]:
        return fresh_reviews(self.run.path, self.run.results)
