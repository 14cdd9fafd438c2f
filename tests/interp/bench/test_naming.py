"""What a label says, of which images it is true, and how near it comes to the planted concepts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from interp.bench.constructed import Constructed
from interp.bench.figures import Line, figures_of, is_believed, line_of, spearman
from interp.bench.naming import WorldTruth, auroc_of, grade_names, has_third, is_flagged
from sae.world import TIERS
from tests.interp.bench.test_truth import named

PURE = Constructed("pure", ("cup",))
EVEN = Constructed("even", ("face", "cloud"))
THREE = Constructed("pure", ("small circle on the left",))
BOTH = Constructed("pure", ("red striped",))


@pytest.mark.parametrize(
    ("label", "second", "meaning", "expected", "third"),
    [
        ("a cup", None, PURE, "exact", False),
        ("Cup.", None, PURE, "exact", False),
        ("mugs", None, PURE, "synonym", False),
        ("container", None, PURE, "hypernym", False),
        ("tree", None, PURE, "wrong", True),
        ("something", None, PURE, "wrong", True),
        ("red striped", None, BOTH, "exact", False),
        ("stripy red things", None, BOTH, "synonym", False),
        ("red", None, BOTH, "hypernym", False),
        ("circle on the left", None, THREE, "hypernym", False),
        ("circle on the right", None, THREE, "wrong", True),
        ("blue striped", None, BOTH, "wrong", True),
        ("smiley", "cloud", EVEN, "both", False),
        ("cloud", None, EVEN, "one of two", False),
        ("cloud", "circle", EVEN, "one of two", True),
        ("circle", None, EVEN, "wrong", True),
        ("cup without red", None, Constructed("absorbed", ("cup", "red")), "synonym", False),
        ("red", None, Constructed("absorbed", ("cup", "red")), "wrong", False),
    ],
)
def test_a_label_is_named_for_what_it_is(
    label: str, second: str | None, meaning: Constructed, expected: str, third: bool
) -> None:
    said = dataclasses.replace(named(0, label), second_label=second)
    assert grade_names(said, meaning) == expected
    assert has_third(said, meaning) == third
    assert is_flagged(said) == (second is not None)


def test_no_label_names_nothing() -> None:
    assert grade_names(named(0, None), PURE) == "none"
    assert not has_third(named(0, None), PURE)


def test_a_label_is_true_where_its_concept_is_or_any_of_a_wider_word() -> None:
    flags = pd.DataFrame(False, index=list("abcd"), columns=[c.name for c in TIERS["hard"]])
    flags.loc["a", "cat"] = flags.loc["b", "bird"] = flags.loc["c", "red striped"] = True
    truth = WorldTruth(flags, ["d", "c", "b", "a"])
    assert truth.where("a kitten").tolist() == [False, False, False, True]
    assert truth.where("animal").tolist() == [False, False, True, True]
    assert truth.where("a striped red object").tolist() == [False, True, False, False]
    assert not truth.where("elegance").any()
    assert not truth.where(None).any()


def test_the_auroc_of_yes_and_no_is_that_of_pairs() -> None:
    rng = np.random.default_rng(0)
    flags, active = rng.random((60, 3)) < 0.4, rng.random(60) < 0.3
    for column, value in zip(flags.T, auroc_of(flags, active), strict=True):
        pairs = np.sign(column[active].astype(int)[:, None] - column[~active].astype(int))
        assert value == pytest.approx((pairs + 1).mean() / 2)
    assert np.isnan(auroc_of(flags, np.zeros(60, bool))).all()


def line(**changes: object) -> Line:
    values = dict.fromkeys((field.name for field in dataclasses.fields(Line)), "")
    values |= {"latent": 0, "kind": "pure", "label": "cup", "verdict": "single", "naming": "exact"}
    values |= {"supported": "supported", "third": False, "domain_said": False, "flagged": False}
    values |= {"score": 0.9, "low": 0.8, "high": 0.95, "truth": 0.93, "truth_all": 0.9, "best": 1.0}
    return Line(**{**values, **changes})  # type: ignore[arg-type]


def test_figures_count_each_kind_by_itself() -> None:
    lines = [
        line(),
        line(naming="wrong", score=0.5, low=0.4, high=0.6, truth=0.7, truth_all=0.5),
        line(kind="even", naming="both", flagged=True, score=0.8, truth=0.8),
        line(kind="even", naming="one of two", third=True),
        line(kind="noise", naming="wrong", supported="unsupported", best=0.6),
        line(kind="random", naming="wrong", best=0.6),
        line(kind="domain", domain_said=True, score=math.nan),
    ]
    found = figures_of(lines, (1.0, 2.0))
    assert (found.named, found.even_both, found.even_one) == (0.5, 0.5, 0.5)
    assert (found.even_flagged, found.even_third, found.false_third) == (0.5, 0.5, 0.5)
    assert (found.false_noise, found.false_random, found.domain_said) == (0, 1, 1)
    assert (found.supported, found.false_supported) == (1, 2 / 6)
    assert math.isnan(found.uneven_both)
    # noise and random directions have no right name: no regret
    assert found.regret == pytest.approx((0.1 + 0.5 + 0.1 + 0.1 + 0.1) / 5)
    assert found.error == pytest.approx((0.03 + 0.2 + 0 + 3 * 0.03) / 6)
    assert found.cover == pytest.approx(5 / 6)
    assert (found.usd_explain, found.usd_score) == (1, 2)


def test_a_label_is_believed_when_it_is_supported_or_else_clear_and_above_chance() -> None:
    assert is_believed(line(low=0.4))
    assert not is_believed(line(supported="undecided"))
    assert is_believed(line(supported=""))
    assert not is_believed(line(supported="", low=0.49))
    assert not is_believed(line(supported="", verdict="unclear"))
    assert not is_believed(line(supported="", label=""))


def test_spearman_ranks_ties_by_their_mean() -> None:
    assert spearman([1, 2, 2, 3], [10, 20, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_a_latent_without_a_label_counts_as_not_named_and_has_full_regret() -> None:
    flags = pd.DataFrame(False, index=list("abcd"), columns=[c.name for c in TIERS["easy"]])
    flags.loc[["a", "b"], "cup"] = True
    truth, active = WorldTruth(flags, list("abcd")), np.array([True, True, False, False])
    made = line_of("constructed", named(0, None), "judge", None, PURE, truth, active)
    assert (made.naming, made.truth_all, made.best) == ("none", 0.5, 1.0)
    found = figures_of([made, line()], (0, 0))
    assert (found.named, found.score) == (0.5, 0.9)
    assert found.regret == pytest.approx((0.5 + 0.1) / 2)
