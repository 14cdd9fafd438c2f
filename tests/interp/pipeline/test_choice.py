"""The choice among several labels of a latent: which one stands, and what its score is worth."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest

from interp.pipeline.best_of.choose import (
    candidates_of,
    choose,
    count_choices,
    gap_of,
    labels_to_compare,
)
from interp.pipeline.best_of.stages import SELECT_SAMPLE
from interp.records.split import LeakError
from interp.records.types import AnsweredBy, Evidence, Explanation, Score
from interp.score.latent import score_latent
from interp.score.sampling import SampleConfig
from tests.support.interp.latents import explained, make_evidence, paint
from tests.support.interp.oracles import Oracle, graded, truth_of

BY = AnsweredBy("local", "best of")
EVIDENCE = make_evidence(select=True)
GOOD, SAME = 0.95, 0.75


def score(
    area: float, label: str, evidence: Evidence = EVIDENCE, on: SampleConfig = SELECT_SAMPLE
) -> Score:
    """By an oracle to whom the label is worth this AUROC; its chance hangs on the label."""
    seed = int.from_bytes(label.encode(), "big") % 1_000_003
    judge = Oracle(truth_of(evidence), graded(area), seed=seed)
    said = explained(evidence.stats.latent, label)
    return asyncio.run(score_latent(evidence, said, judge, paint, on))


def areas(explanation: Explanation) -> list[float]:
    return [one.auroc for one in explanation.chosen_among]


def test_the_label_with_the_best_auroc_stands_and_says_so():
    answers = [explained(7, name) for name in ("one", "two", "three")]
    grades = {"one": score(0.6, "one"), "two": score(0.99, "two"), "three": score(0.55, "three")}
    made = choose(answers, grades, BY)
    assert (made.label, made.prompt) == ("two", "best of")
    assert areas(made) == [grades[name].auroc for name in ("one", "two", "three")]
    assert made.chosen_among[1].gap == gap_of(grades["two"]) > 20
    assert set(made.chosen_on) == {v.image_id for v in grades["two"].verdicts}
    ranked = sorted(areas(made), reverse=True)
    told = ", ".join(f"{area:.2f}".removeprefix("0") for area in ranked)
    assert made.provenance == f"best of 3 by AUROC on the select side: {told}"
    found = count_choices([made, explained(9)])
    assert (found.n_compared, found.n_other) == (1, 1)
    assert (found.auroc_first, found.auroc_chosen) == (areas(made)[0], ranked[0])


def test_the_first_of_a_ranked_list_stands_unless_another_leads():
    answers = [explained(7, name) for name in ("one", "two")]
    grades = {"one": score(0.6, "one"), "two": score(0.99, "two")}
    apart = grades["two"].auroc - grades["one"].auroc
    assert choose(answers, grades, BY, lead=apart - 0.01).label == "two"
    made = choose(answers, grades, BY, lead=apart)
    assert made.label == "one"
    assert made.provenance.startswith("first of 2, which none leads by ")
    assert count_choices([made]).auroc_chosen == grades["one"].auroc
    failed = {**grades, "one": replace(grades["one"], failure="missing_answers")}
    assert choose(answers, failed, BY, lead=0.9).label == "two"


def test_at_equal_aurocs_the_larger_gap_stands_and_then_the_first():
    answers = [explained(7, name) for name in ("one", "two", "three")]
    one = score(GOOD, "one")
    dim = [replace(v, score=(v.score or 0) / 2) for v in one.verdicts]
    grades = {
        "one": replace(one, verdicts=tuple(dim)),
        "two": replace(one, label="two"),
        "three": replace(one, label="three"),
    }
    assert choose(answers, grades, BY).label == "two"


def test_labels_that_could_not_be_compared_leave_the_first():
    answers = [explained(7, name) for name in ("one", "two")]
    few = make_evidence(n_active=3, select=True)
    grades = {name: score(GOOD, name, few) for name in ("one", "two")}
    assert grades["one"].failure == "too_few_images"
    made = choose(answers, grades, BY)
    assert made.label == "one"
    assert made.provenance.startswith("first of 2: too few images")
    assert [*map(math.isnan, areas(made))] == [True, True]
    grades["two"] = score(0.5, "two")
    assert choose(answers, grades, BY).label == "two"  # the only one that is known to be something


def test_answers_that_agree_need_no_judge():
    answers = [replace(explained(7, "one"), usd=0.5, calls=(key,)) for key in "ab"]
    refused = replace(explained(7, None, "refused"), usd=0.25, calls=("c",))
    assert labels_to_compare([*answers, refused]) == []
    made = choose([*answers, refused], {}, BY)
    assert (made.label, made.chosen_among) == ("one", ())
    assert (made.usd, made.calls) == (1.25, ("a", "b", "c"))


@pytest.mark.parametrize("late", ["answer", "score"])
def test_what_waiting_would_bring_is_waited_for(late):
    answers = [replace(explained(7, name), calls=(name,)) for name in ("one", "two")]
    grades = {name: score(GOOD, name) for name in ("one", "two")}
    if late == "answer":
        answers.append(replace(explained(7, None, "timeout"), reason="slow"))
    else:
        grades["two"] = replace(grades["two"], failure="timeout", reason="slow")
    made = choose(answers, grades, BY)
    assert (made.label, made.failure, made.reason) == (None, "timeout", "slow")
    assert made.calls == ("one", "two")  # what was paid is kept
    assert made.prompt == "best of"


def test_answers_without_a_label_are_passed_over_unless_there_is_none():
    refused = explained(7, None, "refused")
    grades = {name: score(GOOD, name) for name in ("one", "two")}
    made = choose([refused, explained(7, "one"), explained(7, "two")], grades, BY)
    assert made.label in ("one", "two")
    assert made.provenance.endswith("(1 without a usable answer)")
    assert choose([refused, refused], {}, BY).failure == "refused"


def test_the_local_namers_names_are_compared_but_a_pair_of_names_stands():
    said = replace(explained(7, "cat"), candidates=("cat", "dog", "net"), confidence=70)
    names = candidates_of(said, 2)
    assert [(e.label, e.confidence) for e in names] == [("cat", 70), ("dog", None)]
    assert candidates_of(replace(said, second_label="dog"), 3) == [
        replace(said, second_label="dog")
    ]
    unnamed = explained(7, None, "too_few_images")
    assert candidates_of(unnamed, 3) == [unnamed]


def test_a_label_is_never_tested_on_what_it_was_chosen_on():
    """Planted: an image of the test among those that chose, and the other way round."""
    tested = score(GOOD, "one", on=SampleConfig())
    said = explained(7, "one")
    judge = Oracle(truth_of(EVIDENCE), graded(GOOD))
    leaked = replace(said, chosen_on=(tested.verdicts[0].image_id,))
    asyncio.run(score_latent(EVIDENCE, said, judge, paint))
    with pytest.raises(LeakError, match="cannot test a label"):
        asyncio.run(score_latent(EVIDENCE, leaked, judge, paint))
    shown = replace(said, codes={"A": score(GOOD, "one").verdicts[0].image_id})
    with pytest.raises(LeakError, match="cannot test a label"):
        asyncio.run(score_latent(EVIDENCE, shown, judge, paint, SELECT_SAMPLE))
    moved = tuple(replace(e, side="select") for e in EVIDENCE.examples if e.side == "score")
    wrong = dataclasses.replace(EVIDENCE, examples=moved)
    with pytest.raises(LeakError, match="not on the select side"):
        asyncio.run(score_latent(wrong, said, judge, paint, SELECT_SAMPLE))


def test_a_choice_on_the_side_select_leaves_the_score_unbiased():
    """Four labels of one worth: whichever stands, its AUROC is `SAME`. The largest of four on the
    images that test it says much more, on images that had no part in the choice it does not."""
    names = ("one", "two", "three", "four")
    honest, cursed, said = [], [], []
    for latent in range(20, 80):
        evidence = make_evidence(latent, select=True)
        answers = [explained(latent, f"{name} {latent}") for name in names]
        tests = {e.label: score(SAME, e.label, evidence, SampleConfig()) for e in answers}
        on_select = {e.label: score(SAME, e.label, evidence) for e in answers}
        made = choose(answers, on_select, BY)
        honest.append(tests[made.label].auroc)
        said.append(max(areas(made)))
        cursed.append(max(areas(choose(answers, tests, BY))))
    assert np.mean(cursed) - SAME > 0.05
    assert np.mean(said) - SAME > 0.08
    assert abs(np.mean(honest) - SAME) < 0.03
