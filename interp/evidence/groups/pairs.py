"""64-bit hashes -> all pairs that differ in few bits, without looking at every pair.

Two hashes that differ in at most r bits differ in at most r // 4 bits of one of their four bands of
16 bits: hashes are sorted by each band, and each is held against those alone whose band is one of
its near ones (Norouzi et al. 2012, multi-index hashing). It is exact: no pair is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from interp.evidence.stream.top_k import Ints, Keys

AT_ONCE = 1 << 22
"""Pairs that are looked at together: it bounds the memory."""
_N_BANDS, _BITS = 4, 16


class NearPairs(NamedTuple):
    """Some pairs of hashes."""

    first: Ints  # (n,) places of the hashes
    second: Ints  # (n,)
    distance: Ints  # (n,) bits that differ


def near_pairs(hashes: Keys, within: int, at_once: int = AT_ONCE) -> Iterator[NearPairs]:
    """Each pair of `hashes` (n,) that differs in at most `within` bits, once."""
    bands = [(hashes >> np.uint64(_BITS * b)).astype(np.uint16) for b in range(_N_BANDS)]
    radius = within // _N_BANDS
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        keys, sorted_hashes = band[order], hashes[order]
        bounds = np.searchsorted(keys, np.arange((1 << _BITS) + 1))  # of each key's places
        for owner, partner in _near_places(keys, bounds, radius, at_once):
            differing = sorted_hashes[owner] ^ sorted_hashes[partner]
            near = np.flatnonzero(np.bitwise_count(differing) <= within)
            first, second, differing = order[owner[near]], order[partner[near]], differing[near]
            fresh = np.ones(len(near), bool)  # an earlier band has not found it
            for earlier in range(number):
                part = (differing >> np.uint64(_BITS * earlier)).astype(np.uint16)
                fresh &= np.bitwise_count(part) > radius
            distance = np.bitwise_count(differing).astype(np.int64)
            if fresh.any():
                yield NearPairs(first[fresh], second[fresh], distance[fresh])


def _near_places(
    keys: np.ndarray, bounds: Ints, radius: int, at_once: int
) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of places of sorted `keys` that differ in at most `radius` bits, each pair once."""
    places = np.arange(len(keys))
    for flips in range(radius + 1):
        for bits in combinations(range(_BITS), flips):
            mask = sum(1 << bit for bit in bits)
            # Of a key and the same with flipped bits, the one without the highest of these asks.
            asking = places if not mask else np.flatnonzero(keys >> bits[-1] & 1 == 0)
            near = keys[asking].astype(np.int64) ^ mask
            starts = bounds[near] if mask else asking + 1
            for owner, partner in expand(starts, bounds[near + 1] - starts, at_once):
                yield asking[owner], partner


def expand(starts: Ints, counts: Ints, at_once: int) -> Iterator[tuple[Ints, Ints]]:
    """For each i the numbers from starts[i] on, counts[i] of them: (i, number), some at a time."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + at_once, side="right")))
        part = counts[first:last]
        owners = np.repeat(np.arange(first, last), part)
        begins = np.repeat(starts[first:last] - (ends[first:last] - part - done), part)
        yield owners, begins + np.arange(len(owners))
        first = last
