"""What a pass kept -> images that leave a latent at zero: drawn evenly, or nearly firing it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from interp.evidence.stream.activations import Pairs
from interp.evidence.stream.top_k import Ints, Kept, concatenate, rank_within, splitmix64
from sae.core.shares import apportion

_DEPTH = 8
"""Strongest images taken of each neighbour, per side and domain, as candidates."""
_BLOCK = 1024


class Chosen(NamedTuple):
    """Images chosen for latents, ordered by latent and side, then rank."""

    latents: Ints
    sides: Ints
    rows: Ints
    ranks: Ints


class Candidates(NamedTuple):
    """Images that may become hard negatives, best first within (latent, side, domain)."""

    latents: Ints
    sides: Ints
    domains: Ints
    rows: Ints

    def pairs(self) -> Pairs:
        """The question that decides: is the latent silent on the image?"""
        return Pairs(self.rows, self.latents)


def share_by_domain(n_active: Ints, n: int) -> Ints:
    """Share `n` images over the domains as the active ones are, largest remainder first.

    `n_active` (n_latents, 2, n_domains); all 0 where a side has no active image. Negatives of
    another domain mix would be told apart by the domain alone.
    """
    return apportion(n, n_active.astype(float))


def find_neighbours(w_dec: Tensor, alive: NDArray[np.bool_], n: int) -> Ints:
    """(n_latents, n) latents of the nearest decoder rows by cosine, nearest first.

    Dead latents are never neighbours; -1 where there are too few others.
    """
    rows = F.normalize(w_dec.detach().float(), dim=1)
    dead = torch.from_numpy(~alive).to(rows.device)
    n_found = min(n, len(rows))
    nearest = np.full((len(rows), n), -1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = (rows[block] @ rows.T).masked_fill(dead, -torch.inf)
        own = torch.arange(len(cosines), device=rows.device)
        cosines[own, own + start] = -torch.inf
        best = torch.topk(cosines, n_found, dim=1)
        latents = best.indices.masked_fill(best.values == -torch.inf, -1)
        nearest[block, :n_found] = latents.cpu().numpy()
    return nearest


def find_candidates(top: Kept, near: Ints, wanted: Ints) -> Candidates:
    """The neighbours' strongest images, on each side and domain where any are `wanted`.

    The strongest of every neighbour come first, the nearest neighbour's before the others'.
    """
    n_latents, n_sides, n_domains = wanted.shape
    rows = top.rows.reshape(n_latents, n_sides, n_domains, -1)[..., :_DEPTH]
    parts = []
    for side, domain in np.ndindex(n_sides, n_domains):
        latents = np.flatnonzero(wanted[:, side, domain])
        found = rows[near[latents], side, domain]  # (n, n_neighbours, depth)
        found = np.where(near[latents][..., None] >= 0, found, -1)
        found = found.transpose(0, 2, 1).reshape(len(latents), near.shape[1] * rows.shape[-1])
        where, place = np.nonzero(found >= 0)
        same = np.zeros_like(where)
        parts.append(Candidates(latents[where], same + side, same + domain, found[where, place]))
    return concatenate(parts)


def choose_hard(found: Candidates, silent: NDArray[np.bool_], wanted: Ints) -> Chosen:
    """The first silent candidates, each image once, up to the number `wanted` of each domain."""
    fresh = np.zeros(len(silent), bool)
    keys = found.latents * (found.rows.max(initial=0) + 1) + found.rows
    fresh[np.unique(keys, return_index=True)[1]] = True
    kept = Candidates(*(column[silent & fresh] for column in found))
    order = np.lexsort((kept.domains, kept.sides, kept.latents))  # stable: still best first
    kept = Candidates(*(column[order] for column in kept))
    groups = (kept.latents * wanted.shape[1] + kept.sides) * wanted.shape[2] + kept.domains
    places = rank_within(groups)
    within = places < wanted[kept.latents, kept.sides, kept.domains]
    return _mix(Candidates(*(column[within] for column in kept)), places[within], wanted)


def choose_silent(reservoir: Kept, taken: Pairs, wanted: Ints) -> Chosen:
    """Images of the reservoir evenly at random, up to the number `wanted` of each domain.

    `taken` are the pairs that may not be chosen: active, or chosen already. Each latent starts at
    its own place of the shuffled reservoir and takes the next ones that are free.
    """
    n_latents, n_sides, n_domains = wanted.shape
    starts = splitmix64(np.arange(n_latents, dtype=np.uint64))
    parts = []
    for group, (side, domain) in enumerate(np.ndindex(n_sides, n_domains)):
        pool = reservoir.rows[group]
        pool = pool[pool >= 0]
        latents = np.flatnonzero(wanted[:, side, domain]) if len(pool) else np.zeros(0, np.int64)
        mine, places, ranks = _walk(pool, taken, latents, starts, wanted[:, side, domain])
        same = np.zeros_like(mine)
        parts.append((mine, same + side, same + domain, pool[places], ranks))
    *columns, places = map(np.concatenate, zip(*parts, strict=True))
    return _mix(Candidates(*columns), places, wanted)


def _walk(
    pool: Ints, taken: Pairs, latents: Ints, starts: NDArray[np.uint64], wanted: Ints
) -> tuple[Ints, Ints, Ints]:
    """Latents, places in the pool and ranks of the first free images from each latent's start."""
    order = np.argsort(pool)
    at = np.searchsorted(pool, taken.rows, sorter=order).clip(max=max(len(pool) - 1, 0))
    ours = pool[order[at]] == taken.rows if len(pool) else np.zeros(len(at), bool)
    by_latent = np.argsort(taken.latents[ours], kind="stable")
    busy_latents = taken.latents[ours][by_latent]
    busy_places = order[at[ours]][by_latent]
    parts = [(np.zeros(0, np.int64),) * 3]
    for start in range(0, len(latents), _BLOCK):
        block = latents[start : start + _BLOCK]
        free = np.ones((len(block), len(pool)), bool)
        span = slice(*np.searchsorted(busy_latents, [block[0], block[-1] + 1]))
        row = np.searchsorted(block, busy_latents[span]).clip(max=len(block) - 1)
        known = block[row] == busy_latents[span]
        free[row[known], busy_places[span][known]] = False
        first = (starts[block] % np.uint64(len(pool))).astype(np.int64)
        walk = (first[:, None] + np.arange(len(pool))) % len(pool)
        free = np.take_along_axis(free, walk, axis=1)
        rank = np.cumsum(free, axis=1) - 1
        where, step = np.nonzero(free & (rank < wanted[block, None]))
        parts.append((block[where], walk[where, step], rank[where, step]))
    mine, places, ranks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return mine, places, ranks


def _mix(found: Candidates, places: Ints, wanted: Ints) -> Chosen:
    """Rank so that the first few of a (latent, side) have the domain mix of the whole."""
    evenly = (places + 0.5) / wanted[found.latents, found.sides, found.domains]
    order = np.lexsort((found.domains, evenly, found.sides, found.latents))
    latents, sides = found.latents[order], found.sides[order]
    return Chosen(latents, sides, found.rows[order], rank_within(latents * 2 + sides))
