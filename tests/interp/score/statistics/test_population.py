"""What judged images say of all held-out ones: against the whole distribution, counted in numpy."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from interp.records.types import Evidence, HeldOut
from interp.score.sampling import SampleConfig, draw_sample
from interp.score.statistics.population import Judged, precision, rho
from interp.score.statistics.weights import weigh
from tests.support.interp.latents import make_evidence, weakened
from tests.support.interp.oracles import World


def counted(evidence: Evidence, held_out: tuple[HeldOut, ...]) -> Evidence:
    return replace(evidence, stats=replace(evidence.stats, held_out=held_out))


def shown(evidence: Evidence) -> list:
    sample = draw_sample(evidence, SampleConfig())
    return [*sample.positives, *sample.negatives]


def test_weights_add_up_to_all_held_out_images_of_each_kind_and_domain() -> None:
    evidence = make_evidence()
    images = shown(evidence)
    weights = weigh(evidence, images)
    assert len(weights) == 40
    sums: dict[tuple[str, str], float] = {}
    for e in images:
        kind = "active" if e.is_positive else e.kind
        key = kind, "" if e.is_positive else e.domain
        sums[key] = sums.get(key, 0) + weights[e.image_id]
    hard = Counter(e.domain for e in images if e.kind == "hard")
    assert sums["active", ""] == pytest.approx(500)
    for name, silent in (("sketch", 1600), ("photo", 2900)):
        assert sums["hard", name] == hard[name] > 0
        assert sums["silent", name] == pytest.approx(silent - hard[name])


def test_strata_too_weak_to_be_shown_fall_to_the_weakest_that_is() -> None:
    evidence = make_evidence()
    floor = SampleConfig(grey=0.35)  # of 60 evenly spread activations the weakest 21 are grey
    sample = draw_sample(evidence, floor)
    weights = weigh(evidence, [*sample.positives, *sample.negatives])
    of = {s: sum(weights[e.image_id] for e in sample.positives if e.stratum == s) for s in range(5)}
    assert of[0] == 0
    assert of[1] == pytest.approx(200)  # its own fifth and the grey one
    assert [of[s] for s in (2, 3, 4)] == pytest.approx([100] * 3)


def test_a_domain_without_a_silent_image_in_the_test_is_left_out() -> None:
    evidence = make_evidence(domains=("sketch",))
    weights = weigh(evidence, shown(evidence))
    assert sum(weights.values()) == pytest.approx(2000)
    none_silent = (HeldOut("sketch", 400, 1600), HeldOut("photo", 100, 0))
    evidence = counted(make_evidence(domains=("sketch",)), none_silent)
    assert sum(weigh(evidence, shown(evidence)).values()) == pytest.approx(2100)


def test_what_was_not_counted_has_no_weight() -> None:
    older = counted(make_evidence(), ())
    assert weigh(older, shown(older)) == {}
    weak = weakened(make_evidence())
    assert weigh(weak, shown(weak)) == {}


def test_all_images_judged_give_the_plain_correlation_and_share() -> None:
    """Equal weights and many images: what numpy says of the sample itself."""
    rng = np.random.default_rng(0)
    active = rng.random(4000) < 0.2
    acts = np.where(active, rng.gamma(1.5, 1, 4000), 0)
    grades = np.clip(30 + 15 * acts + 15 * rng.normal(size=4000), 0, 100)
    judged = Judged(grades, acts, np.ones(4000), (~active).astype(np.int64))
    assert rho(judged).value == pytest.approx(np.corrcoef(grades, acts)[0, 1], abs=0.002)
    low, high = rho(judged)[1:]
    assert low < np.corrcoef(grades, acts)[0, 1] < high < low + 0.06
    assert precision(judged).value == pytest.approx(active[grades >= 50].mean(), abs=0.002)


def test_a_base_rate_of_one_in_fifty_is_told_from_one_in_two() -> None:
    """The same grades: what is precise among as many silent as active images is not at 1 in 50."""
    grades = np.array([90.0] * 18 + [10] * 2 + [90] * 2 + [10] * 18)
    acts = np.array([3.0] * 20 + [0] * 20)
    kinds = np.array([0] * 20 + [1] * 20)
    even = Judged(grades, acts, np.ones(40), kinds)
    rare = even._replace(weights=np.where(kinds == 0, 1.0, 49.0))
    # Half a silent image more counts as graded high: 2.5 of 21.
    for judged, base in ((even, 0.5), (rare, 0.02)):
        expected = base * 0.9 / (base * 0.9 + (1 - base) * 2.5 / 21)
        assert precision(judged).value == pytest.approx(expected)
    assert precision(rare).high < 0.5 < precision(even).low
    weights = np.where(kinds == 0, 0.02 / 20, 0.98 / 20)
    gm, am = weights @ grades, weights @ acts
    plain = (weights @ ((grades - gm) * (acts - am))) / math.sqrt(
        (weights @ (grades - gm) ** 2) * (weights @ (acts - am) ** 2)
    )
    assert plain < 0.36 < 0.8 == pytest.approx(np.corrcoef(grades, acts)[0, 1])
    assert rho(rare).value == pytest.approx(plain, abs=0.03)
    assert rho(even).value == pytest.approx(0.8, abs=0.03)


def test_what_says_nothing_gives_nought_or_nothing() -> None:
    acts, kinds = np.array([1.0, 2, 0, 0]), np.array([0, 0, 1, 1])
    same = Judged(np.full(4, 50.0), acts, np.ones(4), kinds)
    assert rho(same) == (0, -1, 1)
    none = same._replace(grades=np.full(4, math.nan))
    assert all(map(math.isnan, (*rho(none), *precision(none))))
    low = same._replace(grades=np.full(4, 10.0))
    assert math.isnan(precision(low).value)
    no_silent = Judged(*(part[:2] for part in same))
    assert math.isnan(rho(no_silent).value)


def test_refused_images_do_not_make_a_correlation() -> None:
    acts = np.array([5.0] * 20 + [0] * 20)
    kinds = np.array([0] * 20 + [1] * 10 + [2] * 10)
    grades = np.array([math.nan] * 20 + [10.0] * 10 + [12.0] * 10)
    estimate = rho(Judged(grades, acts, np.where(kinds == 1, 50.0, 1.0), kinds))
    assert estimate.value == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("area", [0.5, 0.9])
def test_the_interval_of_rho_covers_the_whole_distribution_s(area: float) -> None:
    world = World(area=area, base_rate=0.1)
    rng = np.random.default_rng(0)
    found = [rho(world.judged(rng, 20)) for _ in range(400)]
    held = [low <= world.rho <= high for _, low, high in found]
    assert 0.92 < np.mean(held) < 0.985
    assert np.mean([one.value for one in found]) == pytest.approx(world.rho, abs=0.02)


def test_lost_answers_do_not_raise_rho() -> None:
    """8 + 8 images of which a quarter have no answer: a residual deviation that so few grades show
    is small by chance more often than one of 16 would be."""
    world = World(area=0.9, base_rate=0.1, lost=0.25)
    rng = np.random.default_rng(0)
    found = [rho(world.judged(rng, 8)).value for _ in range(700)]
    assert np.mean(found) == pytest.approx(world.rho, abs=0.02)
