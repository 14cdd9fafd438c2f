"""Similarities of words to a latent's images -> one name or two, and how sure they are.

Everything is in standard deviations above what the same word reaches on images of no choice, so
that words compare. Constants were chosen on constructed latents of the world of seed 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

SHARED_BY = 0.75
"""Share of the images that must have what is named: words are ranked by what so many reach."""
COVERED = 0.8
"""Share of the images that must have one of two names."""
LEAST_SHARE, LEAST_IMAGES = 0.15, 3
"""Of the images, in the smaller of two groups."""
GAIN, LIFT = 0.3, 1.0
"""Deviations by which two names must cover the images better than the best single name, and better
than they cover images of no choice: "sketch" and "photo" together cover everything."""
GROUP_FIT, CROSS_FIT = 0.6, 0.6
"""A group must reach this share of its word's `reach`, and may not reach as much of the other's."""
LEAST_FIT = 0.55
"""Share of its `reach` below which a single name is unclear."""
LEAST_AGREEMENT = 0.5
"""Share of the halves below which names are unclear."""
N_HALVES = 32
N_PAIRED = 24
"""Words from which pairs are made: those that some of the images reach best."""
ALIKE = 0.9
"""Correlation over images of no choice from which on two words name the same."""

SETTINGS = (
    *(SHARED_BY, COVERED, LEAST_SHARE, LEAST_IMAGES, GAIN, LIFT, GROUP_FIT, CROSS_FIT),
    *(LEAST_FIT, LEAST_AGREEMENT, N_HALVES, N_PAIRED, ALIKE),
)
"""All that decides the names."""

Verdict = Literal["single", "several", "unclear"]


class Usual(NamedTuple):
    """What words reach on images that were not chosen for any latent."""

    z: Tensor  # (b, c) deviations
    reach: Tensor  # (c,) what 1 in 100 of them reaches: how far the word can go at all

    @classmethod
    def of(cls, similarity: Tensor) -> Usual:
        """From the (b, c) similarities of such images."""
        z = standardise(similarity, similarity)
        return cls(z, z.quantile(0.99, dim=0).clamp_min(1e-6))


class Naming(NamedTuple):
    """The words that were chosen, as columns."""

    terms: tuple[int, ...]
    """One, or two with the larger group's first."""
    verdict: Verdict
    confidence: int
    """0 to 100: how far the names, and that they fit, come again in halves of the images."""
    ranked: tuple[int, ...]
    """All that were considered, best first, `terms` before the others."""


def standardise(similarity: Tensor, usual: Tensor) -> Tensor:
    """(n, ...) similarities of texts and images, in deviations above the (b, ...) usual ones.

    CLIP likes some texts on every image; against what it usually gives them, all texts compare.
    """
    return (similarity - usual.mean(0)) / usual.std(0, correction=0).clamp_min(1e-6)


def score_terms(z: Tensor) -> Tensor:
    """(c,) what `SHARED_BY` of the images (n, c) reach, for every term: the lower quartile.

    A term that fits half of the images very well is not what they share.
    """
    return z.quantile(1 - SHARED_BY, dim=0)


def name_images(
    z: Tensor, strong: Tensor, usual: Usual, seed: Sequence[int], n_ranked: int = 5
) -> Naming:
    """Name what the images (n, c) share, or the two things that they fall into.

    Two names stand where both have a group: it fits its own name and not the other, and both
    together cover the images better than one name does. One name must fit the `strong` images,
    (n,) flags; the weaker ones may miss it. `seed` draws the halves.
    """
    scores = score_terms(z)
    # Equal scores fall to the earlier term: `sort` is stable, `topk` is not.
    ranked = scores.sort(descending=True, stable=True).indices[: max(n_ranked, 2)]
    some = z.quantile(1 - LEAST_SHARE, dim=0).sort(descending=True, stable=True).indices[:N_PAIRED]
    words = torch.unique(torch.cat([ranked, some]))  # (k,) ascending
    part = Usual(usual.z[:, words], usual.reach[words])
    own = z[:, words]
    found = _find(own, strong, part)
    agreement = _agreement(own, strong, part, found, np.random.default_rng(seed))
    clear = found.fits and agreement >= LEAST_AGREEMENT
    verdict: Verdict = "unclear" if not clear else ("several" if len(found.words) > 1 else "single")
    terms = tuple(int(words[word]) for word in found.words)
    others = (term for term in ranked.tolist() if term not in terms)
    return Naming(terms, verdict, round(100 * agreement), (*terms, *others)[:n_ranked])


class _Found(NamedTuple):
    words: tuple[int, ...]
    fits: bool


def _find(z: Tensor, strong: Tensor, usual: Usual) -> _Found:
    scores = score_terms(z)
    best = int(scores.argmax())
    pair = _find_pair(z, usual)
    if pair is not None:
        return _Found(pair, True)
    return _Found((best,), bool(strong.any()) and _fit(z, usual, best, strong) >= LEAST_FIT)


def _find_pair(z: Tensor, usual: Usual) -> tuple[int, int] | None:
    """The two words of which each image has the better one, where both have support."""
    n, k = z.shape
    if n < 2 * LEAST_IMAGES or k < 2:
        return None
    left, right = torch.triu_indices(k, k, 1)
    covered = torch.maximum(z[:, left], z[:, right]).quantile(1 - COVERED, dim=0)  # (pairs,)
    at = int(covered.argmax())
    one, two = int(left[at]), int(right[at])
    first = z[:, one] >= z[:, two]
    if 2 * int(first.sum()) < n:
        one, two, first = two, one, ~first
    second = ~first
    holds = (
        int(second.sum()) >= max(LEAST_IMAGES, LEAST_SHARE * n)
        and covered[at] - z.quantile(1 - COVERED, dim=0).max() >= GAIN
        and covered[at] - _covered_anyway(usual, one, two) >= LIFT
        and min(_fit(z, usual, one, first), _fit(z, usual, two, second)) >= GROUP_FIT
        and max(_cross(z, usual, two, first), _cross(z, usual, one, second)) <= CROSS_FIT
    )
    return (one, two) if holds else None


def _covered_anyway(usual: Usual, one: int, two: int) -> Tensor:
    """What the better of two words reaches on images of no choice."""
    return torch.maximum(usual.z[:, one], usual.z[:, two]).quantile(1 - COVERED)


def _fit(z: Tensor, usual: Usual, word: int, group: Tensor) -> float:
    return float(z[group, word].quantile(1 - SHARED_BY) / usual.reach[word])


def _cross(z: Tensor, usual: Usual, word: int, group: Tensor) -> float:
    return float(z[group, word].quantile(0.5) / usual.reach[word])


def _agreement(
    z: Tensor, strong: Tensor, usual: Usual, full: _Found, rng: np.random.Generator
) -> float:
    """Mean over halves of the images of shared over all names; a half without a fit shares none.

    Words that rank images of no choice alike (`ALIKE`) are the same name.
    """
    alike = usual.z.T @ usual.z / len(usual.z) >= ALIKE  # (k, k)
    total = 0.0
    for _ in range(N_HALVES):
        some = rng.permutation(len(z))[: max(1, len(z) // 2)]
        half = _find(z[some], strong[some], usual)
        if not half.fits:
            continue
        shared = sum(any(alike[own, other] for other in half.words) for own in full.words)
        shared = min(shared, len(half.words))
        total += shared / (len(full.words) + len(half.words) - shared)
    return total / N_HALVES
