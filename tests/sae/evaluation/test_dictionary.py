from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.planted import recovery
from sae.evaluation import dictionary as room
from sae.evaluation.dictionary import coherence, match, nearest_cosine, stability


def directions(n: int, d: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def at_angle(cosine: float) -> list[float]:
    return [cosine, math.sqrt(1 - cosine**2), 0.0]


def test_orthogonal_directions_have_no_coherence() -> None:
    found = coherence(torch.eye(4))
    assert (found.coherence, found.mean_max_cosine, found.twins) == (0, 0, 0)


def test_coherence_of_three_known_directions() -> None:
    W_dec = torch.tensor([[1.0, 0, 0], at_angle(0.95), [-0.6, 0, 0.8]])
    found = coherence(3 * W_dec)  # lengths do not count
    assert found.coherence == pytest.approx(0.95)
    assert found.mean_max_cosine == pytest.approx((0.95 + 0.95 - 0.6 * 0.95) / 3)
    assert found.twins == pytest.approx(2 / 3)


def test_opposite_directions_are_coherent_but_no_twins() -> None:
    found = coherence(torch.tensor([[1.0, 0], [-1.0, 0]]))
    assert (found.coherence, found.mean_max_cosine, found.twins) == (1, -1, 0)


def test_dead_latents_do_not_count() -> None:
    W_dec = torch.cat([torch.eye(3), torch.eye(3)])
    assert coherence(W_dec).twins == 1
    assert coherence(W_dec, torch.tensor([True] * 3 + [False] * 3)).twins == 0
    assert math.isnan(coherence(W_dec, torch.tensor([True] + [False] * 5)).coherence)


def test_the_figures_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = directions(50, 8), directions(40, 8, seed=1)
    cosines = ours @ ours.T - 2 * torch.eye(50)
    whole = coherence(ours), stability(ours, theirs), recovery(ours, theirs)
    assert whole[0].mean_max_cosine == pytest.approx(cosines.amax(1).mean().item())
    assert whole[0].coherence == pytest.approx((ours @ ours.T).fill_diagonal_(0).abs().max().item())
    for n_rows in (1, 7, 49):
        monkeypatch.setattr(room, "ROWS_AT_ONCE", n_rows)
        for found, wanted in zip(
            (coherence(ours), stability(ours, theirs), recovery(ours, theirs)), whole, strict=True
        ):
            assert vars(found) == pytest.approx(vars(wanted), abs=1e-6)


def test_a_dictionary_in_another_order_is_found_again() -> None:
    ours = directions(300, 16)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    found = match(ours, ours[order])
    assert torch.equal(order[found.theirs], found.ours)
    assert torch.equal(found.ours, torch.arange(300))
    torch.testing.assert_close(found.cosine, torch.ones(300))


def test_matching_takes_the_largest_cosine_first() -> None:
    for seed in range(20):
        ours, theirs = directions(13, 4, seed), directions(9 + seed % 8, 4, 100 + seed)
        found = match(ours, theirs)
        pairs = set(zip(found.ours.tolist(), found.theirs.tolist(), strict=True))
        assert pairs == one_after_the_other(ours @ theirs.T)
        torch.testing.assert_close(found.cosine, (ours @ theirs.T)[found.ours, found.theirs])


def one_after_the_other(cosines: Tensor) -> set[tuple[int, int]]:
    """The slow way: the largest that is left, until a side is used up."""
    left, pairs = cosines.clone(), set()
    for _ in range(min(cosines.shape)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        pairs.add((row, column))
        left[row], left[:, column] = -torch.inf, -torch.inf
    return pairs


def test_matching_is_nearly_the_best_of_all_pairings() -> None:
    lost = []
    for seed in range(30):
        ours = directions(6, 8, seed)
        theirs = F.normalize(ours + 0.4 * directions(6, 8, 100 + seed), dim=1)
        cosines = ours @ theirs.T
        best = max(
            sum(cosines[row, column] for row, column in enumerate(order)).item() / 6
            for order in permutations(range(6))
        )
        lost.append(best - match(ours, theirs).cosine.mean().item())
    assert min(lost) > -1e-6
    assert sum(lost) / len(lost) < 0.005


def test_equal_directions_are_each_matched_once() -> None:
    ours = torch.ones(5, 3) / 3**0.5
    found = match(ours, ours[:3])
    assert sorted(found.theirs.tolist()) == [0, 1, 2]
    assert len(set(found.ours.tolist())) == 3


def test_stability_counts_what_another_seed_finds_as_well() -> None:
    ours = torch.eye(4)
    theirs = torch.tensor([[0.0, 0, 1, 0], [0.8, 0.6, 0, 0], [0.8, 0.6, 0, 0]])
    found = stability(ours, theirs)
    assert (found.n_live, found.n_live_other) == (4, 3)
    assert found.matched_cosine == pytest.approx((1 + 0.8 + 0.6) / 3)
    assert (found.matched_0_7, found.matched_0_9) == (0.5, 0.25)  # one of ours has no partner
    assert found.nearest_cosine == pytest.approx((0.8 + 0.6 + 1 + 0) / 4)
    fewer = stability(ours, theirs, live_other=torch.tensor([True, False, False]))
    assert (fewer.n_live_other, fewer.matched_cosine) == (1, 1)
    nothing = stability(ours, theirs, live=torch.zeros(4, dtype=torch.bool))
    assert nothing.n_live == 0
    assert math.isnan(nothing.matched_cosine)


def test_recovery_of_planted_directions() -> None:
    W_dec = torch.tensor([[2.0, 0, 0], [0, 0, 5.0]])
    planted = torch.tensor([[3.0, 0, 0], at_angle(0.95), [0, 1, 0]])
    found = recovery(W_dec, planted, weights=torch.tensor([2.0, 1, 1]))
    assert found.mean == pytest.approx((1 + 0.95 + 0) / 3)
    assert found.weighted == pytest.approx((2 + 0.95) / 4)
    assert found.found == pytest.approx(2 / 3)
    dead = recovery(W_dec, planted, live=torch.tensor([False, True]))
    assert (dead.mean, dead.found) == (0, 0)
    assert recovery(W_dec, planted, live=torch.zeros(2, dtype=torch.bool)).mean == 0


def test_the_nearest_may_be_the_nearest_of_many() -> None:
    assert nearest_cosine(torch.eye(2), torch.eye(2)[:1]).tolist() == [1, 0]
