"""Which labels say nothing of a latent, and what a free judge makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from interp.records.nulls import NullTest
from interp.records.support import find_support
from interp.records.types import Explanation, LatentStats, Score, Verdict
from interp.score.metrics import auroc, auroc_interval
from interp.score.nulls.suite import (
    GENERIC,
    N_WORDS,
    FreeNulls,
    class_labels,
    domain_labels,
    says_the_same,
)
from tests.support.interp.latents import make_stats
from tests.support.interp.oracles_of_words import CONCEPTS, N_IMAGES, WordOracle, judged

N_LATENTS = 24
WORDS = [f"word{number}" for number in range(150)]


def score_of(explanation: Explanation, verdicts: Sequence[Verdict], nulls: NullTest) -> Score:
    grades = np.array([verdict.score for verdict in verdicts], float)
    truth = np.array([verdict.truth for verdict in verdicts])
    hard = np.array([verdict.kind == "hard" for verdict in verdicts])
    pos, neg = grades[truth], grades[~truth]
    interval, of_hard = auroc_interval(pos, neg), auroc_interval(pos, grades[hard])
    return Score(
        latent=explanation.latent,
        label=explanation.label or "",
        model="oracle",
        explainer="test",
        prompt="p",
        verdicts=(),
        auroc=auroc(pos, neg),
        auroc_low=interval.low,
        auroc_high=interval.high,
        auroc_easy=auroc(pos, neg),
        auroc_hard=auroc(pos, grades[hard]),
        auroc_hard_low=of_hard.low,
        auroc_hard_high=of_hard.high,
        balanced_accuracy=0.5,
        spearman=0.0,
        n_positive=len(pos),
        n_negative=len(neg),
        n_missing=0,
        failure=None,
        calls=(),
        usd=0.0,
        nulls=nulls,
    )


def supported(labels: Sequence[str], oracle: WordOracle, verdict: str = "single") -> float:
    """Share of the latents 0, 1, ... whose labels are supported."""
    suite = FreeNulls(oracle, CONCEPTS[:N_LATENTS], WORDS)
    scores, explanations = [], {}
    for latent, label in enumerate(labels):
        explanation, verdicts = judged(latent, label, oracle)
        explanations[latent] = dataclasses.replace(explanation, verdict=verdict)
        nulls = suite.test(make_stats(latent), explanation, verdicts)
        scores.append(score_of(explanation, verdicts, nulls))
    found = find_support(explanations, scores).values()
    return float(np.mean([one.state == "supported" for one in found]))


def test_true_labels_are_supported_and_labels_of_other_latents_are_not() -> None:
    true = list(CONCEPTS[:N_LATENTS])
    assert supported(true, WordOracle(noise=20)) >= 0.8
    assert supported([*true[1:], true[0]], WordOracle()) == 0


@pytest.mark.parametrize("label", ["something", "a photo", "word3"])
def test_labels_that_say_nothing_are_not_supported(label: str) -> None:
    assert supported([label] * N_LATENTS, WordOracle()) == 0


def test_nothing_is_supported_by_a_judge_whose_foils_know_the_label() -> None:
    class Leaking(WordOracle):
        """A fault: other labels get the grades of the latent's own."""

        def row(self, label: str, latent: int) -> NDArray[np.float64]:
            return super().row(CONCEPTS[latent], latent)

    assert supported(list(CONCEPTS[:N_LATENTS]), Leaking()) == 0


def test_nothing_is_supported_where_the_medium_alone_tells_positives_from_negatives() -> None:
    class Medium(WordOracle):
        """A fault of the images: all positives are of one domain, and each label rises with it."""

        def row(self, label: str, latent: int) -> NDArray[np.float64]:
            return super().row("nothing", latent) / 2 + np.repeat([40.0, 0.0], N_IMAGES // 2)

    assert supported(list(CONCEPTS[:N_LATENTS]), Medium()) == 0


def test_what_the_explainer_calls_unclear_is_not_supported() -> None:
    assert supported(list(CONCEPTS[:6]), WordOracle(), "unclear") == 0


def test_the_words_are_a_thousand_beside_the_labels_and_are_looked_at_together_once() -> None:
    oracle = WordOracle()
    FreeNulls(oracle, ["cat", "Cat", "dog"], [f"w{n}" for n in range(3000)] + ["CAT"])
    assert len(oracle.prepared) == 2 + N_WORDS + len(GENERIC)
    assert not {"cat", "CAT"} <= set(oracle.prepared)


def test_the_same_words_are_drawn_whatever_their_order() -> None:
    words = [f"w{n}" for n in range(3000)]
    one, two = WordOracle(), WordOracle()
    FreeNulls(one, ["cat"], words)
    FreeNulls(two, ["cat"], words[::-1])
    assert one.prepared == two.prepared


def test_counted_are_others_that_do_as_well_but_no_word_that_is_near_in_meaning() -> None:
    class Near(WordOracle):
        def grade_all(self, labels: Sequence[str], image_ids: Sequence[str]) -> NDArray[np.float64]:
            places = np.array([int(one.split("/")[1]) for one in image_ids])
            good = (places < 20) * 100.0
            return np.array(
                [good if label in ("poodle", "hound") else good * 0 for label in labels]
            )

        def kinship(self, label: str, labels: Sequence[str]) -> NDArray[np.float64]:
            return np.array([float(one in ("poodle", "dog", "dogs")) for one in labels]) - np.array(
                [one == "hound" for one in labels]
            )

    oracle = Near()
    explanation, verdicts = judged(0, "poodle", oracle)
    explanation = dataclasses.replace(explanation, label="dog")
    words = ["poodle", "hound", "dogs", *WORDS]
    found = FreeNulls(oracle, ["dog"], words).test(make_stats(0), explanation, verdicts)
    n, n_kin = 4 + len(WORDS), 7  # of them poodle, dog and dogs; hound counts
    assert (found.n_others, found.n_reached) == (n - n_kin, 1)


def test_images_without_a_grade_are_left_out_for_all_labels() -> None:
    oracle = WordOracle()
    explanation, verdicts = judged(0, CONCEPTS[0], oracle)
    lost = [dataclasses.replace(v, score=None, image_id="none") for v in verdicts[:3]]
    found = FreeNulls(oracle, CONCEPTS[:5], WORDS).test(
        make_stats(0), explanation, [*lost, *verdicts[3:]]
    )
    assert found.best is not None
    assert found.n_reached == 0


def test_a_class_name_that_the_label_says_is_no_null() -> None:
    stats = dataclasses.replace(make_stats(0), top_classes=(("tabby_cat", 9), ("dog", 3)))
    assert class_labels(stats, "red") == ["tabby cat"]
    assert class_labels(stats, "a small cat") == []
    no_classes: LatentStats = dataclasses.replace(stats, top_classes=())
    assert class_labels(no_classes, "red") == []


def test_domains_are_named_the_commonest_first() -> None:
    assert domain_labels(["photo", "sketch", "photo"]) == ["a photo", "a sketch"]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("red cup", "Cups", True),
        ("a photo of a dog", "the dog", True),
        ("an image", "An  image", True),
        ("a cat", "a dog", False),
        ("an image of a cat", "an image of a dog", False),
    ],
)
def test_labels_say_the_same_that_share_a_word_of_meaning(
    first: str, second: str, same: bool
) -> None:
    assert says_the_same(first, second) is same
