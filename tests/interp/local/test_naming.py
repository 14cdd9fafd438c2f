"""From similarities of words to images to one name or two, and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from interp.local.naming import (
    LEAST_AGREEMENT,
    LEAST_FIT,
    N_HALVES,
    Naming,
    Usual,
    name_images,
    standardise,
)

N_WORDS, N_USUAL, SHOWN = 12, 400, 2.8
"""Words of which 1 in 20 images shows each; what an image reaches that shows it."""
SKETCH, PHOTO = 10, 11
"""Two words of which each image shows one."""
Z = NDArray[np.float64]


def images(rng: np.random.Generator, *shown: int | None) -> Z:
    """(n, words) similarities: noise, and each image's own word."""
    z = rng.normal(0, 0.5, (len(shown), N_WORDS))
    drawn = rng.random(len(shown)) < 0.5
    z[:, SKETCH], z[:, PHOTO] = np.where(drawn, 1, -1), np.where(drawn, -1, 1)
    for row, word in enumerate(shown):
        if word is not None:
            z[row, word] += SHOWN
    return z


def usual(rng: np.random.Generator) -> tuple[Usual, torch.Tensor]:
    """Images of no choice, as deviations and as they are."""
    shown = [int(word) if word < 10 else None for word in rng.integers(0, 20, N_USUAL)]
    similarity = torch.tensor(images(rng, *shown))
    return Usual.of(similarity), similarity


def name(seed: int, *shown: int | None, also: float = 0.0) -> Naming:
    """Name 16 strong images and the others, drawn from `shown` in their order; `also`: what word 9
    reaches on each of them besides."""
    rng = np.random.default_rng(seed)
    anyway, similarity = usual(rng)
    own = images(rng, *shown)
    own[:, 9] += also
    z = standardise(torch.tensor(own), similarity)
    return name_images(z, torch.arange(len(z)) < 16, anyway, (0, seed))


def test_images_that_share_one_thing_get_one_name() -> None:
    named = name(0, *[3] * 48)
    assert (named.terms, named.verdict, named.confidence) == ((3,), "single", 100)
    assert named.ranked[0] == 3
    assert len(named.ranked) == 5


def test_two_even_groups_get_both_names_and_no_third_that_fits_all_a_little() -> None:
    for seed in range(10):
        named = name(seed, *[3, 7] * 24, also=1.0)
        assert named.verdict == "several"
        assert set(named.terms) == {3, 7}
        assert set(named.ranked[:2]) == {3, 7}
        assert named.confidence >= 60


def test_the_larger_of_two_uneven_groups_is_named_first() -> None:
    named = name(1, *[5, 5, 2, 5] * 12)
    assert (named.terms, named.verdict) == ((5, 2), "several")


def test_a_few_stray_images_are_no_second_group() -> None:
    shown = [3] * 42 + [None] * 3 + [8] * 3  # 3 of 48 are fewer than 15 in 100
    assert name(2, *shown).terms == (3,)


def test_strays_that_share_nothing_are_no_second_group() -> None:
    shown = [3, 3, None, 3] * 12
    named = name(3, *shown)
    assert (named.terms, named.verdict) == ((3,), "single")


def test_images_of_no_choice_are_unclear_although_two_words_cover_all_images() -> None:
    for seed in range(20):
        rng = np.random.default_rng([9, seed])
        shown = [int(word) if word < 10 else None for word in rng.integers(0, 20, 48)]
        named = name(seed, *shown)
        assert named.verdict == "unclear"
        assert {SKETCH, PHOTO} != set(named.terms)


def test_a_name_must_fit_the_strong_images_and_may_miss_weak_ones() -> None:
    strong_fit = [3] * 16 + [3, 3, None] * 10
    weak_fit = [None] * 16 + [3] * 32
    assert name(4, *strong_fit).verdict == "single"
    assert name(4, *weak_fit).verdict == "unclear"


def test_confidence_is_the_share_of_halves_with_the_same_name_and_fit() -> None:
    """Computed again in plain numpy; groups are too small here for two names."""
    rng = np.random.default_rng(11)
    anyway, similarity = usual(rng)
    usually = similarity.numpy()
    own = images(rng, *[3, 3, 6, None, 3])
    z = (own - usually.mean(0)) / usually.std(0)
    reach = np.quantile((usually - usually.mean(0)) / usually.std(0), 0.99, axis=0)
    halves = np.random.default_rng((0, 11))
    full = int(np.quantile(z, 0.25, axis=0).argmax())
    n_same = 0
    for _ in range(N_HALVES):
        half = z[halves.permutation(5)[:2]]
        best = int(np.quantile(half, 0.25, axis=0).argmax())
        fits = np.quantile(half[:, best], 0.25) / reach[best] >= LEAST_FIT
        n_same += best == full and fits
    named = name_images(torch.tensor(z), torch.ones(5, dtype=torch.bool), anyway, (0, 11))
    assert 0 < n_same < N_HALVES
    assert named.terms == (full,)
    assert named.confidence == round(100 * n_same / N_HALVES)
    if n_same / N_HALVES < LEAST_AGREEMENT:
        assert named.verdict == "unclear"


def test_two_words_for_one_thing_do_not_lower_the_agreement() -> None:
    rng = np.random.default_rng(5)
    anyway, similarity = usual(rng)
    z = standardise(torch.tensor(images(rng, *[3] * 48)), similarity)
    twice = torch.cat([z, z[:, [3]] + 0.01 * torch.randn(48, 1)], 1)
    both = Usual(
        torch.cat([anyway.z, anyway.z[:, [3]]], 1), torch.cat([anyway.reach, anyway.reach[[3]]])
    )
    named = name_images(twice, torch.arange(48) < 16, both, (0, 5))
    assert named.confidence == 100
    assert named.verdict == "single"


@pytest.mark.parametrize("n", [3, 4, 7])
def test_few_images_give_a_name_too(n: int) -> None:
    named = name(6, *[3] * n)
    assert named.terms == (3,)
