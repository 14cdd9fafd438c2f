"""What a pass kept -> a latent's negatives: images that leave it at zero, or fire it least.

Silent ones are drawn evenly, hard ones nearly fire it; weak ones stand in where silent ones lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, starmap
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from interp.evidence.stream.activations import Active, Pairs
from interp.evidence.stream.top_k import (
    Acts,
    Ints,
    Kept,
    concatenate,
    places_in,
    rank_within,
    splitmix64,
)
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
    acts: Acts


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

    `n_active` (n_latents, n_sides, n_domains); all 0 where a side has no active image. Negatives of
    another domain mix would be told apart by the domain alone.
    """
    return apportion(n, n_active.astype(float))


def each_domain(n_active: Ints, n: int) -> Ints:
    """`n` images of every domain in which a side has active ones; shape as in `share_by_domain`."""
    return np.where(n_active > 0, n, 0)


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
    _, n_sides, n_domains = wanted.shape
    ends = np.searchsorted(
        found.sides * n_domains + found.domains, np.arange(n_sides * n_domains + 1)
    )
    parts = [_first_silent(found, silent, part, wanted) for part in starmap(slice, pairwise(ends))]
    *columns, places = map(np.concatenate, zip(*parts, strict=True))
    return _mix(Candidates(*columns), places, wanted)


def _first_silent(
    found: Candidates, silent: NDArray[np.bool_], part: slice, wanted: Ints
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Those of one side and domain, and the place of each among its latent's."""
    of = Candidates(*(column[part] for column in found))
    keys = of.latents * (of.rows.max(initial=0) + 1) + of.rows
    fresh = np.zeros(len(keys), bool)
    fresh[np.unique(keys, return_index=True)[1]] = True
    kept = np.flatnonzero(silent[part] & fresh)
    kept = kept[np.argsort(of.latents[kept], kind="stable")]  # still best first
    places = rank_within(of.latents[kept])
    within = places < wanted[of.latents[kept], of.sides[kept], of.domains[kept]]
    latents, sides, domains, rows = (column[kept[within]] for column in of)
    return latents, sides, domains, rows, places[within]


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


def choose_weak(reservoir: Kept, active: Active, wanted: Ints) -> Chosen:
    """Images of the reservoir that fire a latent least, up to the number `wanted` of each domain.

    All lie below the median of the reservoir's images of that side and domain, silent ones counted
    as 0: there are none for a latent that is silent on half of them. `active`: every active pair of
    the reservoir's images.
    """
    parts = [(*np.zeros((5, 0), np.int64), np.zeros(0, np.float32))]
    for group, (side, domain) in enumerate(np.ndindex(wanted.shape[1:])):
        pool = reservoir.rows[group]
        pool = pool[pool >= 0]
        latents = np.flatnonzero(wanted[:, side, domain]) if len(pool) else np.zeros(0, np.int64)
        for block, row, place, pair in _blocks(pool, latents, active.rows, active.latents):
            acts = np.zeros((len(block), len(pool)), np.float32)
            acts[row, place] = active.acts[pair]
            order = np.argsort(acts, axis=1, kind="stable")
            below = (acts > 0) & (acts < np.median(acts, axis=1, keepdims=True))
            below = np.take_along_axis(below, order, axis=1)
            rank = np.cumsum(below, axis=1) - 1
            where, step = np.nonzero(below & (rank < wanted[block, side, domain][:, None]))
            found, same = order[where, step], np.zeros_like(where)
            weak = (block[where], same + side, same + domain, pool[found], rank[where, step])
            parts.append((*weak, acts[where, found]))
    *columns, places, acts = map(np.concatenate, zip(*parts, strict=True))
    return _mix(Candidates(*columns), places, wanted, acts)


def _walk(
    pool: Ints, taken: Pairs, latents: Ints, starts: NDArray[np.uint64], wanted: Ints
) -> tuple[Ints, Ints, Ints]:
    """Latents, places in the pool and ranks of the first free images from each latent's start."""
    parts = [(np.zeros(0, np.int64),) * 3]
    for block, row, place, _ in _blocks(pool, latents, *taken):
        free = np.ones((len(block), len(pool)), bool)
        free[row, place] = False
        first = (starts[block] % np.uint64(len(pool))).astype(np.int64)
        walk = (first[:, None] + np.arange(len(pool))) % len(pool)
        free = np.take_along_axis(free, walk, axis=1)
        rank = np.cumsum(free, axis=1) - 1
        where, step = np.nonzero(free & (rank < wanted[block, None]))
        parts.append((block[where], walk[where, step], rank[where, step]))
    mine, places, ranks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return mine, places, ranks


def _blocks(
    pool: Ints, latents: Ints, rows: Ints, owners: Ints
) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Of every 1,024 `latents`: these, and the pairs (image, owner) that are of them and the pool.

    Of each such pair its place in the block, its image's place in the pool and its own number.
    """
    order = np.argsort(pool)
    at = places_in(pool[order], rows)
    ours = np.flatnonzero(at >= 0)
    ours = ours[np.argsort(owners[ours], kind="stable")]
    owner, place = owners[ours], order[at[ours]]
    for start in range(0, len(latents), _BLOCK):
        block = latents[start : start + _BLOCK]
        span = slice(*np.searchsorted(owner, [block[0], block[-1] + 1]))
        row = np.searchsorted(block, owner[span]).clip(max=len(block) - 1)
        known = block[row] == owner[span]
        yield block, row[known], place[span][known], ours[span][known]


def _mix(found: Candidates, places: Ints, wanted: Ints, acts: Acts | None = None) -> Chosen:
    """Rank so that the first few of a (latent, side) have the domain mix of the whole."""
    acts = np.zeros(len(places), np.float32) if acts is None else acts
    evenly = (places + 0.5) / wanted[found.latents, found.sides, found.domains]
    order = np.lexsort((found.domains, evenly, found.sides, found.latents))
    latents, sides = found.latents[order], found.sides[order]
    ranks = rank_within(latents * wanted.shape[1] + sides)
    return Chosen(latents, sides, found.rows[order], ranks, acts[order])
