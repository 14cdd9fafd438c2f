"""Which labels are supported: three states, from the records alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from interp.records.nulls import Null, NullTest
from interp.records.support import Support, count_states, find_support
from interp.records.types import Score
from tests.support.interp.latents import explained
from tests.support.interp.scoring import Scripted, redness, score

BASE = dataclasses.replace(
    score(Scripted(redness)), verdicts=(), auroc_hard_low=0.7, auroc_hard_high=0.9
)


def null(kind: str = "generic", area: float = 0.5, **gain: float) -> Null:
    found = {"gain": 0.4, "gain_low": 0.2, "gain_high": 0.5, **gain}
    return Null(kind, "something", area, **found)


def graded(reached: int = 0, n: int = 1000, *nulls: Null) -> NullTest:
    return NullTest("free", nulls or (null(),), n, reached)


def one(verdict: str = "single", **changes: Any) -> Support:
    """Of a run with one label, which is supported but for the changes."""
    latent = dataclasses.replace(BASE, latent=7, label="red", **{"nulls": graded(), **changes})
    explanation = dataclasses.replace(explained(7, "red"), verdict=verdict)
    return find_support({7: explanation}, [latent])[7]


def test_a_label_that_passes_all_is_supported_and_says_by_what() -> None:
    found = one()
    assert found.state == "supported"
    assert found.reason == "better than 1,000 other labels and the best null"
    assert found.p == found.p_adjusted == pytest.approx(1 / 1001)


@pytest.mark.parametrize(
    ("state", "words", "changes"),
    [
        ("unsupported", "unclear", {"verdict": "unclear"}),
        ("unsupported", "8% of 1,000 other labels", {"nulls": graded(80)}),
        (
            "unsupported",
            "(class: something) does as well",
            {"nulls": graded(0, 1000, null("class", 0.9, gain_high=-0.01))},
        ),
        ("unsupported", "look-alikes", {"auroc_hard_low": 0.3, "auroc_hard_high": 0.5}),
        (
            "undecided",
            "gain over the best null (generic) may be none",
            {"nulls": graded(0, 1000, null(gain_low=0.0))},
        ),
        ("undecided", "may not tell look-alikes apart", {"auroc_hard_low": 0.5}),
        ("undecided", "no score: timeout", {"failure": "timeout", "auroc": math.nan}),
        ("supported", "", {"auroc_hard": math.nan, "auroc_hard_low": math.nan}),
    ],
)
def test_one_condition_that_fails_is_enough_and_is_said(
    state: str, words: str, changes: dict[str, Any]
) -> None:
    found = one(**changes)
    assert found.state == state
    assert words in found.reason


def test_the_best_null_counts_whatever_its_place() -> None:
    nulls = graded(
        0, 1000, null(), null("domain", 0.8, gain=0.1, gain_low=-0.1), null("class", 0.6)
    )
    found = one(nulls=nulls)
    assert (found.state, found.best, found.gain) == ("undecided", "domain", 0.1)


def run(*reached: int) -> dict[int, Support]:
    scores = [
        dataclasses.replace(BASE, latent=n, label="red", nulls=graded(r))
        for n, r in enumerate(reached)
    ]
    return find_support({n: explained(n, "red") for n in range(len(reached))}, scores)


def test_ranks_are_adjusted_over_the_labels_of_the_run() -> None:
    found = run(0, 19, 29, 900)
    p = [1 / 1001, 20 / 1001, 30 / 1001, 901 / 1001]
    by_hand = [4 * p[0], min(4 * p[1] / 2, 4 * p[2] / 3), 4 * p[2] / 3, p[3]]
    assert [one.p_adjusted for one in found.values()] == pytest.approx(by_hand)
    many = run(30, *[900] * 9)  # p .031, but one of ten
    assert many[0].state == "undecided"
    assert many[0].reason == "its rank among other labels may be chance"
    assert count_states(many.values()) == {"supported": 0, "undecided": 1, "unsupported": 9}


def test_foils_of_all_latents_give_the_rank_where_no_words_were_graded() -> None:
    foils = NullTest("foils", (null("shuffled", 0.6), null("class", 0.99, gain_high=0.1)))
    scores = [
        dataclasses.replace(BASE, latent=n, label="red", auroc=area, nulls=foils)
        for n, area in enumerate((0.9, 0.55))
    ]
    found = find_support({n: explained(n, "red") for n in range(2)}, scores)
    assert [one.p for one in found.values()] == [pytest.approx(1 / 3), 1.0]  # classes are no foils
    assert {one.n_others for one in found.values()} == {2}


def test_a_latent_outside_the_sample_is_held_against_the_mean_of_the_best_kind() -> None:
    nulls = [NullTest("sample", (null("shuffled", a), null("class", a + 0.2))) for a in (0.4, 0.5)]
    scores = [
        dataclasses.replace(BASE, latent=n, label="red", nulls=found)
        for n, found in enumerate([*nulls, None])
    ]
    scores[2] = dataclasses.replace(scores[2], auroc=0.9, auroc_low=0.8, auroc_high=0.95)
    found = find_support({n: explained(n, "red") for n in range(3)}, scores)[2]
    assert (found.best, found.gain) == ("class", pytest.approx(0.9 - 0.65))
    assert found.gain_low == pytest.approx(0.25 - math.hypot(0.1, 1.96 * 0.05))


def test_without_nulls_and_for_labels_of_before_there_is_no_state() -> None:
    bare: Score = dataclasses.replace(BASE, latent=7, label="red")
    assert find_support({7: explained(7, "red")}, [bare]) == {}
    with_nulls = dataclasses.replace(bare, nulls=graded())
    assert find_support({7: explained(7, "blue")}, [with_nulls]) == {}
    assert find_support({7: explained(7, "red")}, [with_nulls], "shuffled") == {}
    control = dataclasses.replace(with_nulls, label="blue", control="shuffled")
    assert list(find_support({7: explained(7, "red")}, [control], "shuffled")) == [7]


def test_too_few_foils_leave_a_label_undecided_and_say_so() -> None:
    few = NullTest("foils", tuple(null("shuffled", a) for a in (0.4, 0.5, 0.6)))
    found = one(nulls=few, auroc=0.95)
    assert (found.state, found.n_others) == ("undecided", 3)
    assert found.reason == "its rank among other labels may be chance"
    found = one(nulls=few, auroc=0.55)
    assert found.state == "unsupported"
    assert "33% of 3 other labels do as well" in found.reason


def test_foils_that_were_asked_about_in_vain_count_as_none() -> None:
    latent = dataclasses.replace(BASE, latent=7, label="red", nulls=NullTest("foils", ()))
    assert find_support({7: explained(7, "red")}, [latent]) == {}


def test_a_kind_with_few_nulls_does_not_stand_for_those_of_other_latents() -> None:
    many = [null("shuffled", 0.45 + 0.01 * n) for n in range(10)]
    scores = [
        dataclasses.replace(BASE, latent=n, label="red", nulls=nulls, auroc_low=0.85)
        for n, nulls in enumerate([NullTest("foils", (*many, null("domain", 0.7))), None])
    ]
    found = find_support({n: explained(n, "red") for n in range(2)}, scores)[1]
    assert found.best == "shuffled"
    assert found.gain == pytest.approx(BASE.auroc - 0.495)
    assert found.gain_low > 0
