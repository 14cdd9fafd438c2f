"""What a pass kept of each group -> the examples of each latent, as columns of one table."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from interp.evidence.stream.activations import Pairs
from interp.evidence.stream.negatives import Chosen
from interp.evidence.stream.top_k import Acts, Ints, Kept, Keys, act_keys, rank_within
from interp.records.types import KINDS, Kind


class Picks(NamedTuple):
    """One entry per example; fields as in `records.Example`."""

    latents: Ints
    sides: Ints  # place in ImageIndex.side_names
    kinds: Ints  # place in KINDS
    ranks: Ints
    strata: Ints
    rows: Ints
    acts: Acts
    maps: Ints  # place of the heat map and its peak, -1 where there is none

    def pairs(self) -> Pairs:
        """Each example's image and latent."""
        return Pairs(self.rows, self.latents)

    def sorted(self) -> Picks:
        """By latent, side, kind and rank: the order on disk."""
        order = np.lexsort((self.ranks, self.kinds, self.sides, self.latents))
        return Picks(*(cast(Ints, column[order]) for column in self))  # type: ignore[arg-type]


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
    return picks._replace(latents=latents, sides=sides)


def pick_negatives(kind: Kind, chosen: Chosen) -> Picks:
    """Silent, hard or weak images: no stratum, no map."""
    none = np.full(len(chosen.rows), -1)
    kinds = np.full(len(chosen.rows), KINDS.index(kind))
    latents, sides, rows, ranks, acts = chosen
    return Picks(latents, sides, kinds, ranks, none, rows, acts, none)


def contains(pairs: Pairs, known: Pairs) -> NDArray[np.bool_]:
    """Which of `pairs` are among `known`."""
    width = 1 + max(pairs.latents.max(initial=0), known.latents.max(initial=0))
    wanted = pairs.rows * width + pairs.latents
    return np.isin(wanted, known.rows * width + known.latents)


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
    strata = np.full(len(groups), -1)
    if n_strata:
        sizes = np.bincount(groups)[groups]
        strata = (sizes - 1 - ranks) * n_strata // sizes
    kinds = np.full(len(groups), KINDS.index(kind))
    maps = np.full(len(groups), -1)
    latents, sides = np.divmod(groups, n_sides)
    return Picks(latents, sides, kinds, ranks, strata, kept.rows[at], kept.acts[at], maps)
