"""A stream of items -> the largest few of each group; and the hashes that stand in for chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Acts = NDArray[np.float32]
Columns = TypeVar("Columns", bound=tuple[Any, ...])
"""A NamedTuple of arrays (n,): a table."""

_MIN_PENDING = 1 << 16
_AT_ONCE = 1 << 20
_GOLDEN, _MIX_1, _MIX_2 = (
    np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class Kept(NamedTuple):
    """What a `Largest` holds: per group, largest key first; empty places have key 0 and row -1."""

    keys: Keys  # (n_groups, m)
    rows: Ints  # (n_groups, m)
    acts: Acts  # (n_groups, m)


class Largest:
    """The `m` largest keys of each group over a stream, each with its store row and activation.

    Keys are above 0; equal keys are ordered by row. The result depends neither on the order nor on
    the batches in which items come. The state is n_groups * m entries of 20 bytes, and a waiting
    list of at most a quarter of that (or one update).
    """

    def __init__(self, n_groups: int, m: int) -> None:
        self._keys = np.zeros((n_groups, m), np.uint64)
        self._rows = np.full((n_groups, m), -1, np.int64)
        self._acts = np.zeros((n_groups, m), np.float32)
        self._pending: list[tuple[Ints, Keys, Ints, Acts]] = []
        self._n_pending = 0

    def update(self, groups: Ints, keys: Keys, rows: Ints, acts: Acts) -> None:
        """Offer items; all four arrays have the shape (n,). An item may be offered only once."""
        # Most items of a long stream are below what their group already holds: they cost one look.
        hopeful = keys >= self._keys[groups, -1]
        self._pending.append((groups[hopeful], keys[hopeful], rows[hopeful], acts[hopeful]))
        self._n_pending += int(hopeful.sum())
        if self._n_pending > max(_MIN_PENDING, self._keys.size // 4):
            self._merge()

    def result(self) -> Kept:
        """What is kept of all that was offered so far."""
        self._merge()
        return Kept(self._keys, self._rows, self._acts)

    def arrays(self) -> list[NDArray[Any]]:
        """Where the state lies."""
        return list(self.result())

    def merge(self, other: Largest) -> None:
        """Take in what another has kept of other items; the same m."""
        keys, rows, acts = other.result()
        at = np.nonzero(keys)
        self.update(at[0], keys[at], rows[at], acts[at])

    def _merge(self) -> None:
        """Sort the waiting items together with what their groups hold, and keep the first m."""
        if not self._n_pending:
            return
        groups, keys, rows, acts = (np.concatenate(p) for p in zip(*self._pending, strict=True))
        self._pending, self._n_pending = [], 0
        touched, where = np.unique(groups, return_inverse=True)
        m = self._keys.shape[1]
        where = np.concatenate([np.repeat(np.arange(len(touched)), m), where])
        keys = np.concatenate([self._keys[touched].ravel(), keys])
        rows = np.concatenate([self._rows[touched].ravel(), rows])
        acts = np.concatenate([self._acts[touched].ravel(), acts])
        order = np.lexsort((rows, ~keys, where))
        order = order[rank_within(where[order]) < m]  # exactly m per touched group
        self._keys[touched] = keys[order].reshape(-1, m)
        self._rows[touched] = rows[order].reshape(-1, m)
        self._acts[touched] = acts[order].reshape(-1, m)


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, one after another; there must be a part."""
    return type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


def rank_within(groups: Ints) -> Ints:
    """Place of each item within its group, from 0, where equal groups stand together."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    sizes = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, sizes)


def places_in(known: Ints, wanted: Ints) -> Ints:
    """Where each of `wanted` stands in the ascending `known`; -1 where it is not among them."""
    places = np.full(len(wanted), -1, np.int64)
    for start in range(0, len(wanted) if len(known) else 0, _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        at = np.searchsorted(known, part).clip(max=len(known) - 1)
        places[start : start + _AT_ONCE] = np.where(known[at] == part, at, -1)
    return places


def act_keys(acts: Acts, ties: Keys) -> Keys:
    """Keys that order by activation (> 0), then by the upper 32 bits of `ties`."""
    # The bits of positive floats, read as integers, are in the floats' own order.
    return (acts.view(np.uint32).astype(np.uint64) << np.uint64(32)) | (ties >> np.uint64(32))


def image_digits(image_ids: Sequence[str]) -> Keys:
    """64 bits of each content hash: hex digits 16:32, which neither the split nor holdout reads."""
    return np.frombuffer(bytes.fromhex("".join(i[16:32] for i in image_ids)), ">u8").astype(
        np.uint64
    )


def splitmix64(x: Keys) -> Keys:
    """A fixed, well mixed map of 64-bit numbers: first output of seed x (Steele et al. 2014)."""
    z = np.atleast_1d(x) + _GOLDEN  # arrays wrap silently, scalars would warn
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
