"""interp/largest.py: what is kept of a stream equals what would be kept of all at once."""

from __future__ import annotations

import numpy as np
import pytest

from interp.evidence.stream import top_k
from interp.evidence.stream.top_k import Largest, act_keys, image_digits, rank_within, splitmix64


def test_splitmix64_gives_the_published_first_outputs() -> None:
    # Vigna's splitmix64.c: first output of seed 0 and of seed 1234567.
    outputs = splitmix64(np.array([0, 1234567], np.uint64))
    assert outputs.tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_digits_come_from_the_part_of_the_hash_that_no_split_reads() -> None:
    assert image_digits(["0" * 16 + "00000000000000ff" + "e" * 32]).tolist() == [255]


def test_act_keys_order_by_activation_then_by_tie() -> None:
    acts = np.array([1e-30, 0.5, 0.5, 3.0, 2e9], np.float32)
    ties = np.array([9, 1 << 40, 2 << 40, 0, 0], np.uint64)
    keys = act_keys(acts, ties)
    assert (np.diff(keys.astype(object)) > 0).all()


def test_ranks_count_from_zero_in_each_group() -> None:
    assert rank_within(np.array([4, 4, 7, 9, 9, 9])).tolist() == [0, 1, 0, 0, 1, 2]
    assert rank_within(np.zeros(0, np.int64)).tolist() == []


def test_the_three_largest_of_a_known_stream() -> None:
    kept = Largest(2, 3)
    for key, row in ((5, 0), (9, 1), (1, 2), (7, 3)):
        kept.update(*_items([0], [key], [row]))
    kept.update(*_items([1], [4], [8]))
    result = kept.result()
    assert result.rows.tolist() == [[1, 3, 0], [8, -1, -1]]
    assert result.keys.tolist() == [[9, 7, 5], [4, 0, 0]]
    assert result.acts.tolist() == [[9, 7, 5], [4, 0, 0]]


@pytest.mark.parametrize("seed", range(20))
def test_largest_over_a_stream_equals_largest_at_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_k, "_MIN_PENDING", seed)
    rng = np.random.default_rng(seed)
    n, n_groups, m = 400, 6, 1 + seed % 5
    groups, rows = rng.integers(0, n_groups, n), rng.permutation(n)
    keys = rng.integers(1, 30, n).astype(np.uint64)  # ties, so that the row must decide
    kept = Largest(n_groups, m)
    cuts = np.sort(rng.integers(0, n, rng.integers(0, 40)))
    for part in np.split(rng.permutation(n), cuts):
        kept.update(*_items(groups[part], keys[part], rows[part]))
    for group in range(n_groups):
        mine = [(-int(keys[i]), int(rows[i])) for i in np.flatnonzero(groups == group)]
        expected = [row for _, row in sorted(mine)[:m]]
        found = kept.result().rows[group]
        assert found[found >= 0].tolist() == expected


def _items(groups, keys, rows):  # type: ignore[no-untyped-def]
    keys = np.asarray(keys, np.uint64)
    return np.asarray(groups), keys, np.asarray(rows), keys.astype(np.float32)
