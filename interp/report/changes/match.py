"""Two SAEs on the same images -> which latents are the same, and what only one of them has."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from interp.evidence.compare.matches import ALIKE, Best, find_matches
from interp.records.wording import interpretation
from interp.report.changes.compare import Pairing, pair_images, read_sides
from interp.run.run import Run
from sae.core.progress import Progress

Kind = Literal["matched", "shared", "only first", "only second"]
KINDS: tuple[Kind, ...] = ("matched", "shared", "only first", "only second")
"""`matched`: each is the other's nearest. `shared`: its nearest is nearer to another one, as where
one SAE has split what the other has in one latent. `only ...`: none of the other SAE is alike."""


class Match(NamedTuple):
    """A latent of one SAE and the nearest of the other; a matched pair stands once."""

    kind: Kind
    latent: int
    """Of the first SAE; of the second for `only second`, and `shared` of the second."""
    of: Literal["first", "second"]
    label: str
    other: int
    """The nearest of the other SAE; -1 for none."""
    other_label: str
    correlation: float
    """Of the activations over all images; NaN without another."""


class Matched(NamedTuple):
    """What came out of two SAEs."""

    first: str
    second: str
    n_images: int
    matches: list[Match]

    def count(self, kind: Kind, of: str = "") -> int:
        """Latents of a kind (of one SAE)."""
        return sum(m.kind == kind and of in ("", m.of) for m in self.matches)


def match_saes(
    first: Run, second: Run, pairing: Pairing, device: str, progress: Progress | None = None
) -> Matched:
    """Latents that are active on the images of both runs; silent ones are left out.

    Raises `UserError` where no image is in both, or they are pooled in two ways.
    """
    rows = pair_images(first, second, pairing)
    found = find_matches(*read_sides((first, second), rows, device, progress))
    mutual = set(found.mutual.tolist())
    matches = _of(found.first, first, second, "first", mutual)
    taken = {int(found.first.latent[n]) for n in mutual}
    matches += [m for m in _of(found.second, second, first, "second", taken) if m.kind != "matched"]
    matches.sort(key=lambda m: (KINDS.index(m.kind), m.of, m.latent))
    names = (first.path.resolve().name, second.path.resolve().name)
    return Matched(*names, len(rows[0]), matches)


def _of(
    best: Best, run: Run, other: Run, of: Literal["first", "second"], mutual: set[int]
) -> list[Match]:
    only: Kind = "only first" if of == "first" else "only second"
    matches = []
    for latent in np.flatnonzero(best.latent >= 0).tolist():
        near, alike = int(best.latent[latent]), float(best.correlation[latent])
        kind: Kind = "matched" if latent in mutual else "shared" if alike >= ALIKE else only
        labels = _label(run, latent), _label(other, near)
        matches.append(Match(kind, latent, of, labels[0], near, labels[1], alike))
    return matches


def _label(run: Run, latent: int) -> str:
    return interpretation(run.results.explanation(latent))
