from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sae.training.feed.shuffle import Order

SHAPES = [(96, 10, 35), (96, 96, 96), (7, 10, 35), (1, 4, 4), (100, 10, 50), (101, 1, 8)]


@pytest.mark.parametrize(("n_tokens", "n_block", "n_window"), SHAPES)
def test_a_pass_holds_each_token_once(n_tokens: int, n_block: int, n_window: int) -> None:
    order = Order(n_tokens, 0, n_block, n_window)
    for number in range(5):
        tokens = order.between(number * n_tokens, (number + 1) * n_tokens)
        assert sorted(tokens.tolist()) == list(range(n_tokens))


@pytest.mark.parametrize(("n_tokens", "n_block", "n_window"), SHAPES)
def test_any_stretch_is_that_of_the_whole_order(n_tokens: int, n_block: int, n_window: int) -> None:
    whole = Order(n_tokens, 3, n_block, n_window).between(0, 4 * n_tokens)
    order = Order(n_tokens, 3, n_block, n_window)
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, stop = np.sort(rng.choice(4 * n_tokens, 2, replace=False)).tolist()
        assert np.array_equal(order.between(start, stop), whole[start:stop])


def test_passes_and_seeds_differ_and_the_same_seed_does_not() -> None:
    orders = [Order(96, seed, 10, 35) for seed in (0, 0, 1)]
    first, same, other = (order.between(0, 192).tolist() for order in orders)
    assert first == same
    assert first != other
    assert first[:96] != first[96:]
    assert first[:96] != sorted(first[:96])


def test_each_pass_and_seed_mixes_other_blocks() -> None:
    first, same, other = (Order(1000, seed, 10, 100) for seed in (0, 0, 1))
    windows = [set(first.between(k * 1000, k * 1000 + 100).tolist()) for k in range(2)]
    assert windows[0] == set(same.between(0, 100).tolist())
    assert windows[0] != windows[1]
    assert windows[0] != set(other.between(0, 100).tolist())


def test_each_pass_shuffles_a_single_window_anew() -> None:
    order = Order(96, 0, 96, 96)
    assert order.between(0, 96).tolist() != order.between(96, 192).tolist()


def test_a_window_is_of_few_contiguous_pieces_and_its_neighbours_are_parted() -> None:
    order = Order(10_000, 0, 50, 1000)
    window = order.between(3000, 4000)
    assert order.window_end(3000) == order.window_end(3999) == 4000
    n_pieces = 1 + (np.diff(np.sort(window)) > 1).sum()
    assert n_pieces <= 1000 // 50 + 1
    assert window.max() - window.min() > 5000  # from all over the data
    assert sum(b - a == 1 for a, b in pairwise(window.tolist())) < 10


def test_windows_end_with_their_pass() -> None:
    order = Order(96, 0, 10, 35)
    assert [order.window_end(place) for place in (0, 34, 35, 69, 70, 95, 96, 130, 131)] == [
        *(35, 35, 70, 70, 96, 96),
        *(131, 131, 166),
    ]


def test_data_of_one_window_are_shuffled_as_a_whole() -> None:
    order = Order(2000, 0, 128, 1 << 18)
    assert sum(b - a == 1 for a, b in pairwise(order.between(0, 2000).tolist())) < 10
