from __future__ import annotations

import numpy as np
import pytest
import torch

from sae.core.errors import UserError
from sae.steering.segment.select import THRESHOLDS, choose_latents, measure_latents
from tests.sae.steering.segment.conftest import Painted

CPU = torch.device("cpu")
CLASSES = (1, 2, 9)


def dense(painted: Painted, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        x = painted.store.read(rows).flatten(0, 1)
        return painted.model.encode(x).dense(40).numpy()


def test_the_latent_of_a_class_is_that_of_the_best_f1_over_all_thresholds(
    painted: Painted,
) -> None:
    rows = np.array([0, 2, 3, 5, 8, 13, 21, 30])
    z = dense(painted, rows)
    rng = np.random.default_rng(1)
    # Classes that follow latents 3 and 17, with noise, patches that count nowhere, and one
    # that is the peak of latent 21.
    truth = np.where(z[:, 3] > 0.4 * z[:, 3].max(), 1, np.where(z[:, 17] > 0, 2, 0))
    truth = np.where(rng.random(len(truth)) < 0.1, rng.integers(0, 3, len(truth)), truth)
    truth[::11], truth[z[:, 21].argmax()] = 255, 9
    figures = measure_latents(painted.model, painted.store, rows, CPU)
    np.testing.assert_allclose(figures.most, z.max(0), rtol=1e-5)
    assert np.array_equal(figures.n_active, (z > 0).sum(0))
    share, limit = (z > 0).mean(0), 0.22
    assert (share >= limit).any()
    assert (share < limit).sum() > 5
    best = {}
    for number in CLASSES:
        counted, own = truth != 255, truth == number
        for threshold in THRESHOLDS:
            for latent in np.flatnonzero((share < limit) & (share > 0)):
                named = (z[:, latent] > 0) & (z[:, latent] >= threshold * z[:, latent].max())
                hits, n = (named & own).sum(), (named & counted).sum() + own.sum()
                found = 2 * hits / n
                if found > best.get(number, (-1,))[0]:
                    best[number] = (found, latent, threshold)
    per_image = truth.reshape(len(rows), -1).astype(np.uint8)
    chosen = choose_latents(
        painted.model, painted.store, rows, per_image, CLASSES, figures, limit, CPU
    )
    for one in chosen:
        f1, latent, threshold = best[one.number]
        assert (one.latent, one.threshold) == (latent, threshold)
        assert one.f1 == pytest.approx(f1)
        assert one.most == pytest.approx(z[:, latent].max(), rel=1e-5)
    assert len({one.threshold for one in chosen}) > 1  # else the thresholds are not told apart


def test_where_no_latent_is_rare_enough_the_option_is_named(painted: Painted) -> None:
    rows = np.arange(4)
    figures = measure_latents(painted.model, painted.store, rows, CPU)
    truth = np.zeros((4, 16), np.uint8)
    with pytest.raises(UserError, match=r"no latent is active on fewer than 1e-05 .*--max-freq"):
        choose_latents(painted.model, painted.store, rows, truth, [1], figures, 1e-5, CPU)
