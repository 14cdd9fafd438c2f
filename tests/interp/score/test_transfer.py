"""The 2x2: labels found on one domain, scored on the other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from interp.records.types import Score
from interp.score.metrics import auroc, auroc_interval
from interp.score.transfer import Domains, bound_by_rate, classify, summarise
from tests.support.interp.crossing import MEANINGS, PAIR, TRUE, crossed, plant
from tests.support.interp.latents import make_stats
from tests.support.interp.synthetic_run import scored

DOMAINS = Domains(*PAIR, 1000, 1000)
LABELS = dict.fromkeys(PAIR, "red")
N = 24


def stats(sketch: float = 0.05, photo: float = 0.05):
    rates = {"sketch": sketch, "photo": photo}
    return dataclasses.replace(make_stats(7), domain_rate=rates)


def cell(area: float, label: str = "red", seed: int = 0, n: int = N) -> Score:
    """A score whose grades tell positives from negatives at exactly about `area`."""
    rng = np.random.default_rng(seed)
    grades = {True: rng.normal(size=n), False: rng.normal(size=n)}
    lead = _lead(grades[True], grades[False], area)
    base = scored(_EVIDENCE, label)
    verdicts = []
    for truth in (True, False):
        like = next(v for v in base.verdicts if v.truth == truth)
        for number, grade in enumerate(grades[truth] + lead * truth):
            value = float(50 + 5 * np.clip(grade, -10, 10))
            name = f"{int(truth)}{number:03d}".ljust(64, "0")
            verdicts.append(dataclasses.replace(like, image_id=name, score=value))
    pos = [v.score for v in verdicts if v.truth]
    neg = [v.score for v in verdicts if not v.truth]
    low, high = auroc_interval(pos, neg)
    figures = {"auroc": auroc(pos, neg), "auroc_low": low, "auroc_high": high}
    return dataclasses.replace(base, verdicts=tuple(verdicts), failure=None, **figures)


def _lead(pos: Sequence[float], neg: Sequence[float], area: float) -> float:
    """What must be added to `pos` for the area: a quantile of all differences."""
    return float(np.quantile(np.subtract.outer(neg, pos), area))


def _evidence():
    from tests.support.interp.latents import make_evidence

    return make_evidence()


_EVIDENCE = _evidence()


def two_by_two(aa: float, ab: float, ba: float, bb: float) -> dict[tuple[str, str], Score]:
    areas = {("sketch", "sketch"): aa, ("sketch", "photo"): ab}
    areas |= {("photo", "sketch"): ba, ("photo", "photo"): bb}
    return {pair: cell(area, seed=n) for n, (pair, area) in enumerate(areas.items())}


@pytest.mark.parametrize(
    ("areas", "kind", "why", "only"),
    [
        ((0.95, 0.95, 0.95, 0.95), "shape", "", ""),
        ((0.95, 0.5, 0.5, 0.95), "domain-bound", "score", ""),
        ((0.95, 0.5, 0.5, 0.5), "undecided", "intervals", ""),
        ((0.95, 0.2, 0.2, 0.2), "domain-bound", "score", "sketch"),
        ((0.95, 0.95, 0.5, 0.95), "one way", "", "sketch"),
        ((0.95, 0.5, 0.95, 0.95), "one way", "", "photo"),
        ((0.2, 0.2, 0.2, 0.2), "undecided", "no label holds", ""),
        ((0.7, 0.7, 0.7, 0.7), "undecided", "intervals", ""),
        ((0.95, 0.7, 0.95, 0.75), "undecided", "intervals", ""),
    ],
)
def test_a_class_follows_from_the_four_intervals(areas, kind, why, only):
    found = classify(stats(), DOMAINS, LABELS, two_by_two(*areas))
    assert (found.kind, found.why, found.only) == (kind, why, only)
    assert [c.auroc for c in found.cells] == pytest.approx(areas, abs=0.02)


def test_a_label_fails_where_the_one_of_that_domain_is_clearly_better_on_the_same_images():
    scores = two_by_two(0.95, 0.5, 0.95, 0.95)
    assert scores["sketch", "photo"].auroc_high > 0.6  # its own interval leaves it open
    assert classify(stats(), DOMAINS, LABELS, scores).kind == "one way"
    # The same figures, but no better label on photos to compare with: its grades tell nothing.
    home = cell(0.5, seed=1)
    assert (
        classify(stats(), DOMAINS, LABELS, scores | {("photo", "photo"): home}).why == "intervals"
    )


def test_scores_on_other_images_are_not_compared():
    scores = two_by_two(0.95, 0.58, 0.95, 0.95)
    assert classify(stats(), DOMAINS, LABELS, scores).kind == "one way"
    home = scores["photo", "photo"]
    other = dataclasses.replace(home.verdicts[0], image_id="f" * 64)
    home = dataclasses.replace(home, verdicts=(other, *home.verdicts[1:]))
    scores["photo", "photo"] = home
    assert classify(stats(), DOMAINS, LABELS, scores).kind == "undecided"


def test_the_interval_of_the_difference_is_delongs():
    from scipy.stats import norm

    from interp.score.transfer import _gain

    better, other = cell(0.9, seed=3), cell(0.6, seed=4)
    areas, positions, negatives = [], [], []
    for one in (better, other):
        pos = np.array([v.score for v in one.verdicts if v.truth])
        neg = np.array([v.score for v in one.verdicts if not v.truth])
        wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
        areas.append(wins.mean())
        positions.append(wins.mean(1))
        negatives.append(wins.mean(0))
    # DeLong 1988: the covariance of both areas from their structural components.
    covariance = np.cov(positions) / N + np.cov(negatives) / N
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    half = norm.ppf(0.975) * error
    difference = areas[0] - areas[1]
    assert _gain(better, other) == pytest.approx((difference - half, difference + half))


@pytest.mark.parametrize(
    ("sketch", "photo", "n_photos", "bound"),
    [
        (0.05, 0.0, 1000, "sketch"),
        (0.05, 0.004, 1000, "sketch"),
        (0.05, 0.01, 1000, ""),  # five times as frequent is not bound
        (0.0, 0.02, 1000, "photo"),
        (0.009, 0.0, 1000, ""),  # nine images may all be sketches by chance
        (0.05, 0.0, 20, ""),  # one photo would be expected among twenty: none says little
        (0.0, 0.0, 1000, ""),
    ],
)
def test_a_latent_is_bound_by_rate_where_its_share_is_beyond_chance(sketch, photo, n_photos, bound):
    domains = Domains(*PAIR, 1000, n_photos)
    assert bound_by_rate(stats(sketch, photo), domains) == bound


def test_what_was_not_asked_is_told_from_what_has_too_few_images():
    assert classify(stats(), DOMAINS, {}, {}).why == "not asked"
    full = two_by_two(0.95, 0.95, 0.95, 0.95)
    waiting = {pair: s for pair, s in full.items() if pair != ("photo", "photo")}
    assert classify(stats(), DOMAINS, LABELS, waiting).why == "not asked"
    few = dataclasses.replace(full["photo", "photo"], failure="too_few_images", auroc=math.nan)
    assert classify(stats(), DOMAINS, LABELS, full | {("photo", "photo"): few}).why == (
        "too few images"
    )
    unnamed = classify(stats(), DOMAINS, {"sketch": "red", "photo": None}, waiting)
    assert (unnamed.kind, unnamed.why) == ("undecided", "too few images")


def test_the_summary_is_over_latents_with_all_four_scores():
    latents = [
        classify(stats(), DOMAINS, LABELS, two_by_two(0.95, 0.95, 0.95, 0.95)),
        classify(stats(), DOMAINS, LABELS, two_by_two(0.95, 0.5, 0.5, 0.95)),
        classify(stats(0.05, 0.0), DOMAINS, {}, {}),
    ]
    found = summarise(latents, *PAIR)
    assert found.counts == {"shape": 1, "domain-bound": 2, "one way": 0, "undecided": 0}
    assert found.reasons == {"domain-bound: rate": 1, "domain-bound: score": 1}
    assert (found.n, found.n_full, found.same_label) == (3, 2, 1.0)
    means = np.mean([[c.auroc for c in one.cells] for one in latents[:2]], 0)
    assert [c.auroc for c in found.cells] == pytest.approx(means)
    assert all(c.low <= c.auroc <= c.high for c in found.cells)
    assert "domain-bound: 2 of 3" in "\n".join(found.lines())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory):
    return plant(tmp_path_factory.mktemp("planted"))


def test_planted_latents_are_classed_right(planted):
    found = crossed(planted, 0.95)
    right = [one.kind == kind for one, kind in zip(found, TRUE, strict=True)]
    assert np.mean(right) >= 0.95
    by_rate = [one.only for one, meaning in zip(found, MEANINGS, strict=True) if None in meaning]
    assert by_rate == ["sketch"] * 3 + ["photo"] * 3 + ["sketch"]


def test_a_judge_that_knows_nothing_finds_no_shape(planted):
    kinds = [one.kind for one in crossed(planted, 0.5)]
    assert kinds.count("shape") == 0
    assert kinds[:16].count("domain-bound") <= 1


@pytest.mark.slow
@pytest.mark.parametrize("area", [0.9, 0.95, 1.0])
def test_500_planted_latents_are_classed_right(tmp_path: Path, area):
    right = []
    for seed in range(22):
        found = crossed(plant(tmp_path / str(seed), seed=seed), area, seed)
        right += [one.kind == kind for one, kind in zip(found, TRUE, strict=True)]
    assert np.mean(right) >= 0.95
