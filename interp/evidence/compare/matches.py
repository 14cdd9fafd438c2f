"""Two SAEs' activations on the same images -> which latents of one are which of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.evidence.compare.activations import Sparse

ALIKE = 0.5
"""Correlation from which two latents answer to the same images."""
_BLOCK = 1024
"""Latents of the first SAE whose correlations are held at once."""


class Best(NamedTuple):
    """The nearest latent of the other SAE, a value a latent."""

    latent: NDArray[np.int64]  # (n,) -1 where the latent or the other SAE is silent
    correlation: NDArray[np.float64]  # (n,) of the activations over all images; NaN likewise


class Matches(NamedTuple):
    """Of each latent of either SAE the nearest of the other one."""

    first: Best
    second: Best

    @property
    def mutual(self) -> NDArray[np.int64]:
        """(m,) latents of the first SAE that are the nearest of their nearest, and alike."""
        n = np.arange(len(self.first.latent))
        there = self.first.latent >= 0
        back = np.full(len(n), -1)
        back[there] = self.second.latent[self.first.latent[there]]
        alike = np.nan_to_num(self.first.correlation) >= ALIKE
        return np.flatnonzero(there & (back == n) & alike)


def find_matches(first: Sparse, second: Sparse) -> Matches:
    """Pearson's correlation of every latent of one with every latent of the other, images in the
    same order; of equal ones the first."""
    (m_a, s_a), (m_b, s_b) = _moments(first), _moments(second)
    n = first.shape[0]
    best = [_none(first.shape[1]), _none(second.shape[1])]
    columns = first.tocsc()
    known = s_b > 0
    for start in range(0, first.shape[1], _BLOCK):
        part = slice(start, min(start + _BLOCK, first.shape[1]))
        products = np.asarray((columns[:, part].T @ second).todense(), np.float64) / n
        with np.errstate(divide="ignore", invalid="ignore"):
            table = (products - np.outer(m_a[part], m_b)) / np.outer(s_a[part], s_b)
        table[~(s_a[part] > 0)] = -np.inf
        table[:, ~known] = -np.inf
        _keep(best[0], np.arange(part.start, part.stop), table.argmax(1), table.max(1))
        rows = table.argmax(0)
        highest = table[rows, np.arange(table.shape[1])]
        better = highest > np.where(np.isnan(best[1].correlation), -np.inf, best[1].correlation)
        _keep(best[1], np.flatnonzero(better), rows[better] + start, highest[better])
    return Matches(*best)


def _moments(table: Sparse) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each latent over all images."""
    n = table.shape[0]
    mean = np.asarray(table.sum(0), np.float64).ravel() / n
    squares = np.asarray(table.astype(np.float64).power(2).sum(0)).ravel() / n
    return mean, np.sqrt(np.maximum(squares - mean**2, 0))


def _none(n: int) -> Best:
    return Best(np.full(n, -1), np.full(n, np.nan))


def _keep(
    best: Best, places: NDArray[np.int64], latents: NDArray[np.int64], values: NDArray[np.float64]
) -> None:
    there = np.isfinite(values)
    best.latent[places[there]] = latents[there]
    best.correlation[places[there]] = values[there]
