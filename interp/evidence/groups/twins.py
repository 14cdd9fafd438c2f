"""Hashes and vectors of images -> which are near-duplicates of each other, as components.

Two images are twins when their hashes differ in at most `hash_alone` bits, or in at most
`hash_within` and the cosine of their vectors in the store is above `cosine_above`. Twins of twins
belong together too, so that none is ever on the other side of the split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from interp.evidence.groups.hashes import Hashes
from interp.evidence.groups.pairs import NearPairs, expand, near_pairs
from interp.evidence.stream.top_k import Ints, concatenate, image_digits
from sae.data.store import EmbeddingStore

Vectors = NDArray[np.float32]

N_SAMPLE = 1000
"""Images of which all pairs are the random pairs on which a store's thresholds are checked."""
_LIKE = 0.98
"""Share of the random pairs of different pictures that `cosine_above` must lie above: vectors of a
middle layer are all alike, and .95 would say nothing of them."""
_MOST = 0.05
"""Share of the images above which a chain of twins of twins is taken apart."""
_LEAST = 20
"""Images up to which it is not."""
_N_LOOKED = 256
"""Members of the largest component of which all pairs are looked at."""
_AT_ONCE = 1 << 16
"""Pairs of images whose vectors are held together."""
_WAITING = 1 << 20
"""Pairs that wait for their vectors."""


@dataclass(frozen=True)
class Rule:
    """When two images are twins."""

    hash_alone: int = 4
    hash_within: int = 8
    cosine_above: float = 0.95

    def joins(self, distance: Ints, cosine: Vectors) -> NDArray[np.bool_]:
        """Whether it holds, pair by pair; a cosine that is NaN is not known."""
        alike = (distance <= self.hash_within) & (cosine > self.cosine_above)
        return np.asarray((distance <= self.hash_alone) | alike)


LADDER = ((4, 8), (2, 8), (0, 8), (0, 6), (0, 4), (0, 0))
"""`hash_alone` and `hash_within`: the next step is taken where the last one makes a chain."""


@dataclass(frozen=True)
class Twins:
    """What was found."""

    labels: Ints  # (n_images,) equal for images of one component
    rule: Rule
    """The thresholds that this store was given."""
    n_pairs: int
    """Random pairs on which they were checked."""
    n_joined: int
    """How many of these are twins."""


def find_twins(store: EmbeddingStore, hashes: Hashes) -> Twins:
    """Components of twins among the images that have a hash; the others are alone.

    The thresholds are `Rule`'s, but for two checks. `cosine_above` rises where more than a fiftieth
    of the random pairs with far hashes would pass it. And where one component would hold a
    twentieth of the images though most pairs of its members are no twins, it is a chain of
    different pictures: the next step of `LADDER` is taken for the whole store.
    """
    rows = np.flatnonzero(hashes.known)
    ids = store.images["image_id"].to_numpy(object)[rows]
    drawn = np.sort(rows[np.argsort(image_digits(list(ids)), kind="stable")[:N_SAMPLE]])
    distance, cosine = _all_pairs(store, hashes, drawn)
    different = cosine[(distance > 2 * Rule.hash_within) & ~np.isnan(cosine)]
    usual = float(np.quantile(different, _LIKE)) if len(different) else 0.0
    rule = Rule(cosine_above=round(max(Rule.cosine_above, usual), 4))
    for alone, within in LADDER:
        rule = replace(rule, hash_alone=alone, hash_within=within)
        labels = _components(store, hashes, rows, rule)
        if not _is_chain(store, hashes, rows, labels, rule):
            break
    whole = np.arange(len(hashes.known))
    whole[rows] = rows[np.unique(labels, return_index=True)[1]][labels]
    return Twins(whole, rule, len(distance), int(rule.joins(distance, cosine).sum()))


class Components:
    """Items that were joined, directly or through others."""

    def __init__(self, n: int) -> None:
        self.labels = np.arange(n)
        """(n,) numbers below n; equal for what is joined."""

    def join(self, first: Ints, second: Ints) -> None:
        """Join items pair by pair."""
        a, b = self.labels[first], self.labels[second]
        if (a != b).any():
            n = len(self.labels)
            edges = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
            self.labels = connected_components(edges, directed=False)[1][self.labels]


def unit_vectors(store: EmbeddingStore, rows: Ints) -> Vectors:
    """(len(rows), d) an image's vector at ascending `rows`: its CLS token, or the mean of its
    patches where the store has no CLS; of length 1; NaN where it cannot be had."""
    info = store.info
    found = np.full((len(rows), info.d), np.nan, np.float32)
    n_images = max(1, (1 << 24) // (info.tokens_per_image * info.d))
    for batch in store.batches(n_images, rows=rows):
        x = batch.x.float().mean(1) if info.tokens == "patch" else batch.x[:, 0].float()
        found[np.searchsorted(rows, batch.rows)] = x.cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def _all_pairs(store: EmbeddingStore, hashes: Hashes, rows: Ints) -> tuple[Ints, Vectors]:
    """Bits that differ, and the cosine, of every pair of a few ascending rows."""
    first, second = np.triu_indices(len(rows), 1)
    values, vectors = hashes.values[rows], unit_vectors(store, rows)
    distance = np.bitwise_count(values[first] ^ values[second]).astype(np.int64)
    return distance, (vectors @ vectors.T)[first, second]


def _components(store: EmbeddingStore, hashes: Hashes, rows: Ints, rule: Rule) -> Ints:
    """(len(rows),) the component of each."""
    values, which = np.unique(hashes.values[rows], return_inverse=True)
    members = rows[np.argsort(which, kind="stable")]
    counts = np.bincount(which, minlength=len(values))
    starts = np.cumsum(counts) - counts
    found, waiting = Components(len(values)), list[NearPairs]()

    def look() -> None:
        pairs = concatenate(waiting)
        waiting.clear()
        close = pairs.distance <= rule.hash_alone
        found.join(pairs.first[close], pairs.second[close])
        apart = found.labels[pairs.first] != found.labels[pairs.second]
        a, b = pairs.first[apart], pairs.second[apart]
        for at, place in expand(np.zeros(len(a), np.int64), counts[a] * counts[b], _AT_ONCE):
            apart = found.labels[a[at]] != found.labels[b[at]]
            at, place = at[apart], place[apart]
            one = members[starts[a[at]] + place // counts[b[at]]]
            other = members[starts[b[at]] + place % counts[b[at]]]
            like = _cosines(store, one, other) > rule.cosine_above
            found.join(a[at[like]], b[at[like]])

    for pairs in near_pairs(values, rule.hash_within):
        waiting.append(pairs)
        if sum(len(pairs.first) for pairs in waiting) > _WAITING:
            look()
    if waiting:
        look()
    return np.unique(found.labels, return_inverse=True)[1][which]


def _cosines(store: EmbeddingStore, one: Ints, other: Ints) -> Vectors:
    rows, where = np.unique(np.concatenate([one, other]), return_inverse=True)
    vectors = unit_vectors(store, rows)
    a, b = where[: len(one)], where[len(one) :]
    return np.asarray(np.einsum("nd,nd->n", vectors[a], vectors[b]), np.float32)


def _is_chain(store: EmbeddingStore, hashes: Hashes, rows: Ints, labels: Ints, rule: Rule) -> bool:
    """Whether the largest component is large, and most pairs of its members are no twins."""
    sizes = np.bincount(labels)
    if not len(sizes) or sizes.max() <= max(_LEAST, _MOST * len(rows)):
        return False
    members = rows[labels == sizes.argmax()]
    looked = members[np.linspace(0, len(members) - 1, min(len(members), _N_LOOKED)).astype(int)]
    return bool(rule.joins(*_all_pairs(store, hashes, looked)).mean() < 0.5)
