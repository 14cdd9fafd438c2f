"""Explanations -> the same with labels of other latents: what a score is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from interp.records.types import Explanation, Status
from interp.records.wording import wording


def shuffle_labels(
    explanations: Sequence[Explanation], status: Mapping[int, Status], seed: int = 0
) -> list[Explanation]:
    """Every latent with the label and description of another one of the same status.

    No latent gets a label that reads like its own. Where one label is more than half of a status
    some latents find no other: they are left out. Ordered by latent; the same seed, the same deal.
    """
    rng = np.random.default_rng(seed)
    dealt: list[Explanation] = []
    for name in sorted(set(status.values())):
        group = [e for e in explanations if e.label is not None and status[e.latent] == name]
        dealt += _rotate_labels(group, rng)
    return sorted(dealt, key=lambda explanation: explanation.latent)


def _rotate_labels(group: Sequence[Explanation], rng: np.random.Generator) -> list[Explanation]:
    """Equal labels stand side by side, then all take the label of the one `shift` places on.

    From the size of the largest block of equal labels up to the rest, every shift leads out of
    every block.
    """
    sizes = Counter(wording(e.label or "") for e in group)
    place = dict(zip(sorted(sizes), rng.permutation(len(sizes)).tolist(), strict=True))
    order = sorted(group, key=lambda e: (place[wording(e.label or "")], e.latent))
    largest = max(sizes.values(), default=0)
    shift = int(rng.integers(largest, max(largest, len(order) - largest) + 1))
    pairs = zip(order, [*order[shift:], *order[:shift]], strict=True)
    return [
        replace(own, label=other.label, description=other.description)
        for own, other in pairs
        if wording(own.label or "") != wording(other.label or "")
    ]
