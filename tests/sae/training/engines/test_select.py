"""The largest columns of each row, exactly, also from bfloat16 candidates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sae.training.engines.sparse.encode import strongest
from sae.training.engines.sparse.topk import largest
from tests.support.sae.sparse_steps import random


@pytest.mark.parametrize("width", [1, 7, 2047, 2049, 8192, 20_011, 40_000])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_selected_columns_hold_the_largest_values(width: int, k: int) -> None:
    k = min(k, width)
    values = random(6, width)
    found = largest(values, k)
    assert found.shape == (6, k)
    assert all(len(set(row)) == k for row in found.tolist())
    expected = torch.topk(values, k, dim=1).values
    assert torch.equal(values.gather(1, found).sort(1, descending=True).values, expected)


@pytest.mark.parametrize("dtype", [torch.int16, torch.bfloat16, torch.float32, torch.float64])
def test_selection_with_ties_takes_the_same_values_as_a_sort(dtype: torch.dtype) -> None:
    values = (random(9, 5000) * 2).round().to(dtype)  # about ten different values
    found = values.gather(1, largest(values, 70)).sort(1, descending=True).values
    assert torch.equal(found, values.sort(1, descending=True).values[:, :70])


@pytest.mark.parametrize("k", [255, 256, 257, 511, 512, 513, 4095, 4096])
def test_selection_is_exact_where_k_nears_the_number_of_groups(k: int) -> None:
    values = random(3, 4096)
    found = values.gather(1, largest(values, k)).sort(1, descending=True).values
    assert torch.equal(found, values.sort(1, descending=True).values[:, :k])


def test_selection_finds_the_largest_of_equal_groups_and_at_the_very_end() -> None:
    values = torch.zeros(1, 4100)
    values[0, [0, 512, 1024, 4096, 4099]] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert sorted(largest(values, 5)[0].tolist()) == [0, 512, 1024, 4096, 4099]


def test_selection_shows_a_nan() -> None:
    values = random(1, 3000)
    values[0, 2900] = torch.nan
    assert 2900 in largest(values, 3)[0].tolist()


def test_more_columns_than_there_are_cannot_be_selected() -> None:
    with pytest.raises(ValueError, match="cannot take 4 of 3 columns"):
        largest(torch.zeros(2, 3), 4)


@pytest.mark.parametrize("n_latents", [500, 4001])
def test_candidates_from_bfloat16_hold_what_float32_keeps(n_latents: int) -> None:
    x, W_enc = random(300, 128), F.normalize(random(n_latents, 128, seed=1), dim=1)
    b_enc = 0.1 * random(n_latents, seed=2)
    expected, found = (
        strongest(x, W_enc, b_enc, 32, precision) for precision in ("float32", "bfloat16")
    )
    same = [
        len(set(a) & set(b))
        for a, b in zip(expected.latents.tolist(), found.latents.tolist(), strict=True)
    ]
    assert sum(same) >= 0.999 * 300 * 32
    exact = ((x @ W_enc.T) + b_enc).gather(1, found.latents)
    torch.testing.assert_close(found.acts, exact.relu(), rtol=1e-5, atol=1e-5)


def test_where_fewer_than_k_fire_bfloat16_still_finds_them() -> None:
    x, W_enc = random(40, 16), F.normalize(random(300, 16, seed=1), dim=1)
    b_enc = torch.full((300,), -3.0)
    found = strongest(x, W_enc, b_enc, 20, "bfloat16")
    expected = (x @ W_enc.T + b_enc).relu()
    assert 0 < (expected > 0).sum(1).max() < 20
    dense = torch.zeros(40, 300).scatter(1, found.latents, found.acts)
    torch.testing.assert_close(dense, expected, rtol=1e-5, atol=1e-5)
