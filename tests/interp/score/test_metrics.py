"""Known values first, then bounds that must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from interp.score.metrics import (
    auroc,
    auroc_interval,
    balanced_accuracy,
    hanley_mcneil,
    spearman,
)


def test_auroc_of_hand_worked_examples() -> None:
    assert auroc([3, 4], [1, 2]) == 1
    assert auroc([1, 2], [3, 4]) == 0
    assert auroc([5, 5], [5]) == 0.5
    assert auroc([1, 3], [2]) == 0.5
    # Pairs: 7>5, 7>7 tie, 7>1, 5=5 tie, 5<7, 5>1: (1 + .5 + 1 + .5 + 0 + 1) / 6.
    assert auroc([7, 5], [5, 7, 1]) == pytest.approx(4 / 6)


def test_auroc_equals_counting_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pos, neg = (rng.integers(0, 6, rng.integers(1, 20)) for _ in range(2))
        pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in pos for n in neg]
        assert auroc(pos, neg) == pytest.approx(np.mean(pairs))


def test_no_answer_counts_half_in_each_of_its_pairs() -> None:
    none = math.nan
    assert auroc([none, none], [1, 2]) == 0.5
    assert auroc([9, none], [1, 2]) == auroc([9, 9], [1, none]) == 0.75
    assert auroc([1, none], [9, 9]) == 0.25
    # True .9 with a quarter of the answers missing on either side: .5 + .4 * .75 ** 2 = .725.
    rng = np.random.default_rng(0)
    pos, neg = rng.normal(1.8124, 1, 4000), rng.normal(0, 1, 4000)
    pos[:1000], neg[:1000] = none, none
    assert auroc(pos, neg) == pytest.approx(0.725, abs=0.005)
    assert auroc_interval([none] * 20, [10.0] * 20) == auroc_interval([5.0] * 20, [5.0] * 20)
    low, high = auroc_interval(pos[900:1100], neg[900:1100])
    assert low < auroc(pos[900:1100], neg[900:1100]) < high


def test_nothing_on_one_side_gives_nan_and_not_a_number() -> None:
    for pos, neg in (([], [1.0]), ([1.0], []), ([], [])):
        assert math.isnan(auroc(pos, neg))
        assert all(math.isnan(bound) for bound in auroc_interval(pos, neg))
        assert math.isnan(balanced_accuracy(pos, neg))
    assert math.isnan(hanley_mcneil(0.5, 0, 3))


def test_hanley_mcneil_of_hand_worked_and_published_values() -> None:
    # .8 with one pair: sqrt(.8 * .2).
    assert hanley_mcneil(0.8, 1, 1) == pytest.approx(0.4)
    # Hanley and McNeil 1982, 58 normal and 51 abnormal images, area .893: standard error .032.
    assert hanley_mcneil(0.893, 51, 58) == pytest.approx(0.032, abs=0.001)
    # Half-widths at 20 + 20 images: .14 at an area of .8, .10 at .9.
    assert 1.96 * hanley_mcneil(0.8, 20, 20) == pytest.approx(0.14, abs=0.005)
    assert 1.96 * hanley_mcneil(0.9, 20, 20) == pytest.approx(0.10, abs=0.005)
    assert hanley_mcneil(1.0, 20, 20) == hanley_mcneil(0.0, 20, 20) == 0


def test_interval_is_about_as_wide_as_hanley_mcneil_says() -> None:
    rng = np.random.default_rng(3)
    pos, neg = rng.normal(0.75, 1, 400), rng.normal(0, 1, 300)
    low, high = auroc_interval(pos, neg)
    error = hanley_mcneil(auroc(pos, neg), 400, 300)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)
    assert low < auroc(pos, neg) < high


def test_a_perfect_score_still_has_an_honest_lower_bound() -> None:
    low, high = auroc_interval([9.0] * 20, [1.0] * 20)
    assert high == 1
    # The area a with a + 1.96 * se(a) = 1 is .899 at 20 + 20 images.
    assert low == pytest.approx(0.899, abs=0.001)
    assert low + 1.959964 * hanley_mcneil(low, 20, 20) == pytest.approx(1)
    assert auroc_interval([9.0] * 5, [1.0] * 5).low < 0.75
    mirrored = auroc_interval([1.0] * 20, [9.0] * 20)
    assert mirrored == pytest.approx((0, 1 - low))


def test_equal_scores_everywhere_are_not_certain_to_be_chance() -> None:
    low, high = auroc_interval([50.0] * 20, [50.0] * 20)
    assert low == pytest.approx(1 - high)
    assert 0.3 < low < 0.36


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_interval_never_has_zero_width_and_holds_the_estimate(n: int) -> None:
    rng = np.random.default_rng(n)
    for spread in (0, 1, 3, 100):
        pos, neg = rng.integers(0, spread + 1, n), rng.integers(0, spread + 1, n)
        low, high = auroc_interval(pos, neg)
        assert 0 <= low < high <= 1
        assert low <= auroc(pos, neg) <= high


def test_interval_is_delong_s_on_the_logit_scale() -> None:
    # DeLong et al. 1988: the placements of 4 positives and 3 negatives, counted by hand.
    pos, neg = [9.0, 7, 4, 3], [6.0, 3, 1]
    over, under = np.array([1, 1, 2 / 3, 0.5]), np.array([0.5, 0.875, 1])
    area = 19 / 24
    # What a pair has of its own beside its two images is in both: once is taken off again.
    wins = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0.5, 1]])
    own = wins - over[:, None] - under + area
    twice = (own**2).sum() / (3 * 2) / 12
    variance = over.var(ddof=1) / 4 + under.var(ddof=1) / 3 - twice
    error = math.sqrt(variance) / (area * (1 - area))
    ends = [math.log(area / (1 - area)) + side * 1.959964 * error for side in (-1, 1)]
    assert auroc(pos, neg) == pytest.approx(area)
    assert auroc_interval(pos, neg) == pytest.approx([1 / (1 + math.exp(-end)) for end in ends])


@pytest.mark.parametrize(("area", "shift", "n"), [(0.9, 1.8124, 20), (0.97, 2.6598, 20)])
def test_interval_covers_the_truth_about_as_often_as_it_says(area, shift, n) -> None:
    rng = np.random.default_rng(0)
    found = [auroc_interval(rng.normal(shift, 1, n), rng.normal(0, 1, n)) for _ in range(1000)]
    assert 0.92 < np.mean([low <= area <= high for low, high in found]) < 0.975
    width = np.mean([high - low for low, high in found])
    assert width < {0.9: 0.21, 0.97: 0.122}[area]  # the bootstrap before: .22 and .13


def test_balanced_accuracy_counts_fifty_as_yes_and_no_answer_as_wrong() -> None:
    assert balanced_accuracy([50, 49], [49, 50]) == 0.5
    assert balanced_accuracy([90, 90, 10, 10], [10]) == 0.75
    assert balanced_accuracy([float("nan"), 90], [float("nan"), 10]) == 0.5


def test_spearman_of_hand_worked_examples() -> None:
    assert spearman([1, 2, 3], [10, 20, 900]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = .8.
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    # With ties: ranks 1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(22.5))


def test_spearman_of_too_little_is_nan() -> None:
    assert math.isnan(spearman([1, 2], [1, 2]))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    with pytest.raises(ValueError, match="3 values against 2"):
        spearman([1, 2, 3], [1, 2])


def test_figures_agree_with_scikit_learn_where_it_is_installed() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, scores = rng.random(60) < 0.4, rng.integers(0, 101, 60)
    pos, neg = scores[truth], scores[~truth]
    assert auroc(pos, neg) == pytest.approx(metrics.roc_auc_score(truth, scores))
    expected = metrics.balanced_accuracy_score(truth, scores >= 50)
    assert balanced_accuracy(pos, neg) == pytest.approx(expected)
