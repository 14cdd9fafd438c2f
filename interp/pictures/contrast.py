"""Latents with one label -> the images of the others that one of them is held against."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, zip_longest
from typing import NamedTuple

from interp.pictures.cache import EvidenceSource
from interp.records.split import check_side
from interp.records.types import Evidence, Example, Explanation
from interp.records.wording import wording

MOST_OTHERS = 3
"""Latents of the same label that one is held against."""
N_OF_EACH = 16
"""Their strongest images."""


class Contrast(NamedTuple):
    """What a latent is told apart from."""

    own: Explanation
    """With the label that others have too."""
    others: tuple[int, ...]
    examples: tuple[Example, ...]
    """The others' strongest images of the explain side, of each in turn; none on which the latent
    itself is known to be active."""
    taken: frozenset[str] = frozenset()
    """What any latent is called (`wording`): such a name tells no one apart."""

    def in_words(self) -> str:
        """For people."""
        latents = ", ".join(map(str, self.others))
        plural = "s" if len(self.others) > 1 else ""
        return f"told apart from latent{plural} {latents}, also called {self.own.label}"


def sharers(newest: Mapping[int, Explanation]) -> dict[int, tuple[int, ...]]:
    """Latent -> the others whose label reads like its own, case aside; only of those with any.

    The next latents by number come first, so that in a large group each is told from others.
    """
    groups: dict[str, list[int]] = {}
    for latent, explanation in sorted(newest.items()):
        if explanation.label is not None:
            groups.setdefault(wording(explanation.label), []).append(latent)
    return {
        latent: (*group[place + 1 :], *group[:place])
        for group in groups.values()
        if len(group) > 1
        for place, latent in enumerate(group)
    }


def contrast_of(
    latent: int,
    newest: Mapping[int, Explanation],
    others: tuple[int, ...],
    source: EvidenceSource,
) -> Contrast:
    """What the latent is held against, of the first `MOST_OTHERS` of `others`.

    Raises `LeakError` for an image that is not of the explain side.
    """
    active = _active(source.of(latent))
    chosen = others[:MOST_OTHERS]
    tops = [source.of(other).of("explain", "top")[:N_OF_EACH] for other in chosen]
    kept: dict[str, Example] = {}
    for example in chain.from_iterable(zip_longest(*tops)):
        if example is not None and example.group_id not in active:
            kept.setdefault(example.group_id, example)
    examples = tuple(kept.values())
    check_side(examples, "explain")
    taken = frozenset(wording(e.label) for e in newest.values() if e.label)
    return Contrast(newest[latent], chosen, examples, taken)


def _active(evidence: Evidence) -> set[str]:
    """Groups of the images on which the latent is known to be active."""
    return {example.group_id for example in evidence.examples if example.act > 0}
