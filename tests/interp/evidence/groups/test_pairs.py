"""All pairs of near hashes, found without looking at all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from interp.evidence.groups.pairs import near_pairs


def _hashes(n: int) -> np.ndarray:
    """Random ones, near ones of each, and many that share three of their four bands."""
    rng = np.random.default_rng(0)
    far = rng.integers(0, 2**63, n, dtype=np.uint64)
    near = far.copy()
    for _ in range(10):
        bits = rng.integers(0, 64, n).astype(np.uint64)
        near ^= np.where(rng.random(n) < 0.5, np.uint64(1) << bits, np.uint64(0))
    alike = rng.integers(0, 1 << 10, n // 2).astype(np.uint64)
    return np.unique(np.concatenate([far, near, alike]))


@pytest.mark.parametrize("within", [0, 4, 7, 8, 11])
@pytest.mark.parametrize("at_once", [1 << 22, 60])
def test_each_pair_within_so_many_bits_is_found_once(within: int, at_once: int) -> None:
    hashes = _hashes(250)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = {(a, b) for a, b in np.argwhere(np.triu(distance <= within, 1)).tolist()}
    found = [
        (min(a, b), max(a, b), d)
        for pairs in near_pairs(hashes, within, at_once)
        for a, b, d in zip(*map(np.ndarray.tolist, pairs), strict=True)
    ]
    assert sorted((a, b) for a, b, _ in found) == sorted(expected)
    assert all(distance[a, b] == d for a, b, d in found)
    assert len(expected) > 100 or within == 0


def test_without_hashes_there_are_no_pairs() -> None:
    assert list(near_pairs(np.zeros(0, np.uint64), 8)) == []
