"""Which latents of two SAEs are the same, against numpy's correlations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from interp.evidence.compare import matches
from interp.evidence.compare.matches import find_matches


@pytest.mark.parametrize("block", [2, 1024])
def test_the_nearest_of_each_is_that_of_numpy(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "_BLOCK", block)
    rng = np.random.default_rng(0)
    a = rng.random((200, 7)) * (rng.random((200, 7)) < 0.4)
    b = np.concatenate([2 * a[:, [3, 0]], rng.random((200, 3)), np.zeros((200, 1))], 1)
    a[:, 6] = 0
    found = find_matches(csr_array(a.astype(np.float32)), csr_array(b.astype(np.float32)))
    with np.errstate(invalid="ignore"):
        table = np.corrcoef(a.T, b.T)[:7, 7:]
    np.testing.assert_allclose(found.first.correlation[:6], np.nanmax(table[:6], 1), atol=1e-6)
    assert found.first.latent[:6].tolist() == np.nanargmax(table[:6], 1).tolist()
    assert (found.first.latent[6], found.second.latent[5]) == (-1, -1)
    assert np.isnan([found.first.correlation[6], found.second.correlation[5]]).all()
    assert found.second.latent[:2].tolist() == [3, 0]
    assert found.mutual.tolist() == [0, 3]


def test_latents_in_another_order_are_all_found_again() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((300, 40)) * (rng.random((300, 40)) < 0.1)
    order = rng.permutation(40)
    found = find_matches(csr_array(a), csr_array(3 * a[:, order]))
    assert found.mutual.tolist() == list(range(40))
    assert (order[found.first.latent] == np.arange(40)).all()
    np.testing.assert_allclose(found.first.correlation, 1)
