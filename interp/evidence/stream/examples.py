"""What a pass kept of each group -> the examples of each latent, as columns of one table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.evidence.stream.activations import Pairs
from interp.evidence.stream.negatives import Chosen
from interp.evidence.stream.top_k import (
    Acts,
    Ints,
    Kept,
    Keys,
    act_keys,
    places_in,
    rank_within,
)
from interp.records.types import KINDS, Kind

Narrow = NDArray[np.signedinteger[Any]]
"""Whole numbers of as few bytes as they need."""


class Picks(NamedTuple):
    """One entry per example, of 21 bytes: there are some hundred a latent. Fields as in
    `records.Example`.
    """

    latents: Narrow
    sides: Narrow  # place in ImageIndex.side_names
    kinds: Narrow  # place in KINDS
    ranks: Narrow
    strata: Narrow
    rows: Narrow
    acts: Acts
    maps: Narrow  # place of the heat map and its peak, -1 where there is none

    @classmethod
    def of(
        cls,
        kind: Kind,
        columns: tuple[Ints, Ints, Ints, Ints, Acts],
        strata: Ints | None = None,
    ) -> Picks:
        """Latents, sides, ranks, rows and acts, of one kind; without heat maps."""
        latents, sides, ranks, rows, acts = columns
        none = np.full(len(rows), -1, np.int32)
        kinds = np.full(len(rows), KINDS.index(kind), np.int8)
        return cls(
            latents.astype(np.int32),
            sides.astype(np.int8),
            kinds,
            ranks.astype(np.int16),
            none.astype(np.int8) if strata is None else strata.astype(np.int8),
            rows.astype(np.int32),
            acts,
            none,
        )

    def pairs(self) -> Pairs:
        """Each example's image and latent."""
        return Pairs(self.rows.astype(np.int64), self.latents.astype(np.int64))

    def sorted(self) -> Picks:
        """By latent, side, kind and rank: the order on disk."""
        return self.take(np.lexsort((self.ranks, self.kinds, self.sides, self.latents)))

    def take(self, places: Ints | slice) -> Picks:
        """The examples at these places."""
        return Picks(*(column[places] for column in self))  # type: ignore[arg-type]


def pick_top(top: Kept, n_sides: int, n_domains: int) -> Picks:
    """Strongest images of each (latent, side), ranked over all domains."""
    groups, places = np.nonzero(top.keys)
    at, keys = (groups, places), top.keys[groups, places]
    return _rank("top", groups // n_domains, keys, top, at, n_sides, n_strata=0)


def pick_quantiles(sample: Kept, n_sides: int, n_strata: int) -> Picks:
    """The even sample of each (latent, side), strongest first, cut into `n_strata` equal parts."""
    groups, places = np.nonzero(sample.keys)
    acts, chance = sample.acts[groups, places], sample.keys[groups, places]
    # By activation; the hash that drew the sample settles ties.
    keys = act_keys(acts, chance)
    return _rank("quantile", groups, keys, sample, (groups, places), n_sides, n_strata)


def pick_by_domain(even: Kept, n_sides: int, n_domains: int, n_strata: int) -> Picks:
    """The even sample of each (latent, side, domain), ranked and cut likewise by itself."""
    picks = pick_quantiles(even, n_sides, n_strata)
    latents, sides = np.divmod((picks.latents * n_sides + picks.sides) // n_domains, n_sides)
    return picks._replace(latents=latents, sides=sides.astype(np.int8))


def pick_negatives(kind: Kind, chosen: Chosen) -> Picks:
    """Silent, hard or weak images: no stratum, no map."""
    latents, sides, rows, ranks, acts = chosen
    return Picks.of(kind, (latents, sides, ranks, rows, acts))


def contains(pairs: Pairs, known: Pairs) -> NDArray[np.bool_]:
    """Which of `pairs` are among `known`."""
    width = 1 + max(pairs.latents.max(initial=0), known.latents.max(initial=0))
    there = np.sort(known.rows * width + known.latents)
    return places_in(there, pairs.rows * width + pairs.latents) >= 0


def _rank(
    kind: Kind,
    groups: Ints,
    keys: Keys,
    kept: Kept,
    at: tuple[Ints, Ints],
    n_sides: int,
    n_strata: int,
) -> Picks:
    """Order entries `at` of what was kept by (latent, side) group, then by falling key."""
    order = np.lexsort((~keys, groups))
    groups, at = groups[order], (at[0][order], at[1][order])
    ranks = rank_within(groups)
    strata = None
    if n_strata:
        sizes = np.bincount(groups)[groups]
        strata = (sizes - 1 - ranks) * n_strata // sizes
    latents, sides = np.divmod(groups, n_sides)
    return Picks.of(kind, (latents, sides, ranks, kept.rows[at], kept.acts[at]), strata)
