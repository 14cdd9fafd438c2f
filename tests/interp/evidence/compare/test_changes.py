"""Which latents rise and fall: against scipy on dense tables, planted changes, and none at all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import false_discovery_control, ttest_ind, ttest_rel

from interp.evidence.compare import changes
from interp.evidence.compare.changes import LEAST, find_changes, find_contrasts

N, N_LATENTS, N_CLASSES = 240, 30, 4


def _table(seed: int, rate: float = 0.3) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    acts = rng.lognormal(0, 0.5, (N, N_LATENTS)) * (rng.random((N, N_LATENTS)) < rate)
    return acts.astype(np.float32)


CLASSES = np.arange(N) % (N_CLASSES + 1) - 1  # a fifth of the images has none


def test_paired_changes_are_those_of_scipy_on_dense_tables() -> None:
    before, after = _table(0), _table(1)
    found = find_changes(csr_array(before), csr_array(after), CLASSES, N_CLASSES)
    n_whole = int((found.classes == -1).sum())
    assert n_whole == N_LATENTS
    for at, (name, latent) in enumerate(zip(found.classes, found.latents, strict=True)):
        here = name == CLASSES if name >= 0 else np.ones(N, bool)
        a, b = before[here, latent].astype(float), after[here, latent].astype(float)
        told = ttest_rel(b, a)
        low, high = told.confidence_interval()
        expected = [(b - a).mean(), low, high, told.pvalue, a.mean(), b.mean(), len(a)]
        said = [found.difference, found.low, found.high, found.p, found.before, found.after]
        np.testing.assert_allclose(
            [column[at] for column in (*said, found.n_before)], expected, rtol=1e-4, atol=1e-6
        )
    whole = found.classes == -1
    for family in (whole, ~whole):
        np.testing.assert_allclose(found.q[family], false_discovery_control(found.p[family]))


def test_contrasts_of_two_groups_are_welchs() -> None:
    before, after = _table(0), _table(1)[:180]
    of_after = CLASSES[:180]
    tables = csr_array(before), csr_array(after)
    found = find_contrasts(*tables, CLASSES, of_after, N_CLASSES)
    for at, (name, latent) in enumerate(zip(found.classes, found.latents, strict=True)):
        a = before[name == CLASSES if name >= 0 else slice(None), latent].astype(float)
        b = after[of_after == name if name >= 0 else slice(None), latent].astype(float)
        told = ttest_ind(b, a, equal_var=False)
        low, high = told.confidence_interval()
        expected = [b.mean() - a.mean(), low, high, told.pvalue, len(a), len(b)]
        said = [found.difference, found.low, found.high, found.p, found.n_before, found.n_after]
        np.testing.assert_allclose([c[at] for c in said], expected, rtol=1e-4, atol=1e-6)


def test_equal_tables_give_none_and_rounding_is_no_change() -> None:
    before = _table(0)
    rounded = before * (1 + 1e-3 * np.sign(np.random.default_rng(2).random(before.shape) - 0.2))
    for after in (before, rounded.astype(np.float32)):
        found = find_changes(csr_array(before), csr_array(after), CLASSES, N_CLASSES)
        assert len(found.q) == 0


def test_too_few_images_are_no_test() -> None:
    before = np.zeros((N, N_LATENTS), np.float32)
    after = before.copy()
    after[: LEAST - 1, 3], after[:LEAST, 4] = 1.0, 1.0
    found = find_changes(csr_array(before), csr_array(after), np.full(N, -1), 0)
    assert found.latents.tolist() == [4]


@pytest.mark.parametrize("seed", range(5))
def test_planted_changes_rise_and_fall_and_no_others(seed: int) -> None:
    """Noise everywhere; in class 1 latent 2 takes the place of latent 7."""
    rng = np.random.default_rng(seed)
    before = _table(seed)
    noise = rng.normal(0, 0.1, before.shape).astype(np.float32) * (before > 0)
    after = np.maximum(before + noise, 0)
    here = np.flatnonzero(CLASSES == 1)
    before[here, 7], after[here, 7] = rng.lognormal(0, 0.5, len(here)), 0
    before[here, 2], after[here, 2] = 0, rng.lognormal(0, 0.5, len(here))
    found = find_changes(csr_array(before), csr_array(after), CLASSES, N_CLASSES)
    shown = {
        (int(c), int(n)): int(sign)
        for c, n, sign in zip(
            found.classes, found.latents, found.signs(np.full(N_LATENTS, 0.1)), strict=True
        )
        if sign and c >= 0
    }
    planted = {(1, 2): 1, (1, 7): -1}
    assert planted.items() <= shown.items()
    assert len(shown) <= 3
    assert changes.Q == 0.05
