"""Two sparse tables of activations, and the images' classes -> which latents rise and fall where.

Of the same images twice the differences image by image are tested (Student's t, paired); of two
groups of images their means (Welch's t). Intervals are 95%, q is by Benjamini and Hochberg over all
pairs of class and latent that were tested; all images together are a family of their own. With many
images small side effects of a change are shown too: what counts as a rise or a fall is more than
`least` from 0 with its whole interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.evidence.compare.activations import Sparse

LEAST = 6
"""Images of a class on which a latent must differ (or be active) for a test: of fewer no sign test
can tell anything at 5% either."""
ROUNDING = 2e-3
"""A smaller difference, as a share of the activation, is the rounding of float16 embeddings."""
Q = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Changes(NamedTuple):
    """What was tested, a value a pair of class and latent; by class, then latent."""

    classes: Ints  # (n,) place among the classes; -1: all images
    latents: Ints  # (n,)
    n_before: Ints  # (n,) images
    n_after: Ints  # (n,)
    before: Floats  # (n,) mean activation, silent images included
    after: Floats  # (n,)
    difference: Floats  # (n,) after less before
    low: Floats  # (n,)
    high: Floats  # (n,)
    p: Floats  # (n,)
    q: Floats  # (n,)

    def signs(self, least: Floats) -> Ints:
        """(n,) 1 where the latent rises, -1 where it falls, 0 where neither is shown at q .05;
        `least` (n_latents,) is what a difference must be beyond."""
        beyond = np.minimum(np.abs(self.low), np.abs(self.high)) > least[self.latents]
        same_side = self.low * self.high > 0
        shown = (self.q <= Q) & beyond & same_side
        return np.where(shown, np.sign(self.difference), 0).astype(np.int64)


class _Tested(NamedTuple):
    """The first fields of `Changes`."""

    classes: Ints
    latents: Ints
    n_before: Ints
    n_after: Ints
    before: Floats
    after: Floats


def find_changes(before: Sparse, after: Sparse, classes: Ints, n_classes: int) -> Changes:
    """Of the same images twice, in the same order; `classes` (n_images,), -1 for none."""
    difference = (after - before).tocsr()
    largest = before.maximum(after)
    kept = abs(difference) > ROUNDING * largest
    difference = difference.multiply(kept).tocsr()
    difference.eliminate_zeros()
    found = []
    for family in _families(classes, n_classes):
        n = np.asarray(family.sum(1)).ravel()
        sums, squares = family @ difference, family @ difference.power(2)
        rows, latents = _enough(family @ (difference != 0).astype(np.float64))
        counts, total = n[rows].astype(np.int64), _at(sums, rows, latents)
        mean = total / counts
        spread = np.maximum(_at(squares, rows, latents) - total * mean, 0) / (counts - 1)
        error, freedom = np.sqrt(spread / counts), (counts - 1).astype(np.float64)
        means = [_at(family @ side, rows, latents) / counts for side in (before, after)]
        tested = _Tested(rows, latents, counts, counts, *means)
        found.append(_test(tested, mean, error, freedom))
    return _joined(found)


def find_contrasts(
    before: Sparse, after: Sparse, of_before: Ints, of_after: Ints, n_classes: int
) -> Changes:
    """Of two groups of images, each with its classes."""
    found = []
    families = zip(_families(of_before, n_classes), _families(of_after, n_classes), strict=True)
    for pair in families:
        sides = (before, after)
        active = sum(
            f @ (side != 0).astype(np.float64) for f, side in zip(pair, sides, strict=True)
        )
        n = [np.asarray(family.sum(1)).ravel() for family in pair]
        rows, latents = _enough(active)
        enough = np.minimum(n[0], n[1])[rows] >= LEAST
        rows, latents = rows[enough], latents[enough]
        counts, means, errors = [], [], []
        for family, side, size in zip(pair, sides, n, strict=True):
            count, total = size[rows], _at(family @ side, rows, latents)
            squares = _at(family @ side.power(2), rows, latents)
            mean = total / count
            counts.append(count.astype(np.int64))
            means.append(mean)
            errors.append(np.maximum(squares - total * mean, 0) / (count - 1) / count)
        error = errors[0] + errors[1]
        parts = [one**2 / (count - 1) for one, count in zip(errors, counts, strict=True)]
        freedom = error**2 / np.maximum(parts[0] + parts[1], 1e-300)
        difference = means[1] - means[0]
        tested = _Tested(rows, latents, *counts, *means)
        found.append(_test(tested, difference, np.sqrt(error), np.maximum(freedom, 1)))
    return _joined(found)


def _families(classes: Ints, n_classes: int) -> list[Sparse]:
    """(n_classes, n_images) and (1, n_images): which images are of each class; all of them."""
    from scipy.sparse import csr_array

    images = np.flatnonzero(classes >= 0)
    ones = np.ones(len(images))
    shape = (n_classes, len(classes))
    return [
        csr_array((ones, (classes[images], images)), shape=shape),
        csr_array(np.ones((1, len(classes)))),
    ]


def _enough(counts: Sparse) -> tuple[Ints, Ints]:
    """Class and latent of the pairs with enough images, by class, then latent."""
    table = counts.tocoo()
    kept = table.data >= LEAST
    rows, latents = table.row[kept].astype(np.int64), table.col[kept].astype(np.int64)
    order = np.lexsort((latents, rows))
    return rows[order], latents[order]


def _at(table: Sparse, rows: Ints, latents: Ints) -> Floats:
    if not len(rows):
        return np.zeros(0)
    return np.asarray(table.tocsr()[rows, latents], np.float64).ravel()


def _test(tested: _Tested, difference: Floats, error: Floats, freedom: Floats) -> Changes:
    """`error` is the standard error of the difference, `freedom` its degrees."""
    from scipy.stats import false_discovery_control, t

    half = t.ppf(0.975, freedom) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(error > 0, np.abs(difference) / error, np.inf)
    p = 2 * t.sf(statistic, freedom)
    p = np.where(difference == 0, 1.0, p)
    q = false_discovery_control(p) if len(p) else p
    bounds = (difference, difference - half, difference + half)
    return Changes(*tested, *bounds, p, q)


def _joined(found: Sequence[Changes]) -> Changes:
    """Those of each class, and behind them those of all images, whose class is -1."""
    by_class, whole = found
    whole = whole._replace(classes=np.full(len(whole.classes), -1))
    return Changes(*(np.concatenate(pair) for pair in zip(by_class, whole, strict=True)))
