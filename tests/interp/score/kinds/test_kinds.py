"""Judging tasks: what is shown, what a perfect and a blind judge get, figures by plain numpy."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from interp.pictures.grid import FIRST
from interp.records.codec import from_json, to_json
from interp.records.split import LeakError
from interp.records.tasks import TaskScore, Trial
from interp.records.types import Example
from interp.score.answer import parse_scores
from interp.score.kinds import fuzz, intruder, match, simulate
from interp.score.kinds.task import TaskKind, share_interval
from interp.score.sampling import SampleConfig, deal, draw_sample
from sae.core.shares import wilson_interval
from tests.support.interp.judging import (
    LABELS,
    Ruled,
    case,
    heat_of,
    judge_task,
    questions,
    red,
    truth_of,
    without,
)
from tests.support.interp.latents import explained, make_evidence

KINDS = (simulate.KIND, intruder.KIND, fuzz.KIND, match.KIND)


def drawn_examples(kind: TaskKind, latent: int = 7) -> list[Example]:
    return [e for one in kind.draw(case(latent, heat=True)) for e in one.examples]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_all_images_are_held_out_and_those_the_explainer_saw_are_refused(kind: TaskKind) -> None:
    shown = drawn_examples(kind)
    assert {e.side for e in shown} == {"score"}
    one = case(heat=True)
    seen = explained()
    seen.codes["A"] = shown[0].image_id
    with pytest.raises(LeakError):
        kind.draw(one._replace(test=seen))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_question_tells_no_truth_class_file_or_number_of_the_latent(kind: TaskKind) -> None:
    for question in questions(kind, case(heat=True)):
        text = " ".join(part for part in question.parts if isinstance(part, str))
        for secret in ("x.png", "sketch", "photo", "silent", "hard", "latent", "active", "half"):
            assert secret not in text
        marked = text.count("<<<")
        assert marked == text.count(">>>") == {"intruder": 0, "match": 6}.get(kind.name, 2)
        fields = question.schema["properties"]
        assert set(map(str, fields.values())) == {"{'type': 'integer'}"}
        assert question.about == f"score-{kind.name} 7"


def test_simulate_shows_the_grids_of_detect_and_follows_the_activation() -> None:
    one = case()
    grids = deal(draw_sample(one.evidence, SampleConfig()), 10, 7)
    assert tuple(drawn.examples for drawn in simulate.draw(one)) == grids
    acts = {e.image_id: e.act for grid in grids for e in grid}
    judge = Ruled(lambda tile, _drawn: round(acts[tile.image_id]))
    assert judge_task(simulate.KIND, judge).value > 0.98
    assert math.isnan(judge_task(simulate.KIND, Ruled(lambda *_: 3.0)).value)


def test_simulates_figures_are_scipys_over_all_and_over_active_images() -> None:
    rng = np.random.default_rng(0)
    act = np.r_[rng.uniform(0.1, 9, 20), np.zeros(20)]
    said = np.clip(np.round(act + rng.normal(0, 3, 40)), 0, 10)
    rows = zip(act.reshape(4, 10).tolist(), said.reshape(4, 10).tolist(), strict=True)
    trials = [Trial(tuple("ABCDEFGHJK"), tuple(true), tuple(answer)) for true, answer in rows]
    found = simulate.measure(trials, 7)
    for name, x, y in (("", act, said), ("_active", act[:20], said[:20])):
        pearson = stats.pearsonr(x, y)
        assert found.more[f"pearson{name}"] == pytest.approx(pearson.statistic)
        bounds = pearson.confidence_interval()
        assert found.more[f"pearson{name}_low"] == pytest.approx(bounds.low)
        assert found.more[f"pearson{name}_high"] == pytest.approx(bounds.high)
    rho = stats.spearmanr(act, said).statistic
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 37)
    assert found.value == pytest.approx(rho)
    assert (found.low, found.high) == pytest.approx(
        np.tanh([np.arctanh(rho) - half, np.arctanh(rho) + half])
    )
    assert found.more["spearman_active"] == pytest.approx(
        stats.spearmanr(act[:20], said[:20]).statistic
    )


def test_an_image_without_an_answer_counts_as_the_mean_and_beyond_a_tenth_there_is_no_figure() -> (
    None
):
    act = [4.0, 3.0, 2.0, 1.0, 0.0, 0.0]
    found = simulate.measure([Trial(tuple("ABCDEF"), tuple(act), (9, None, 5, 2, 0, 1))], 7)
    assert found.value == pytest.approx(stats.spearmanr(act, [9, 3.4, 5, 2, 0, 1]).statistic)
    for lost in ("A", "AB"):
        rule = Ruled(
            lambda tile, _drawn, lost=lost: (
                None if tile.letter in lost else 5 * (tile.letter in "CD")
            )
        )
        score = judge_task(simulate.KIND, rule)
        assert (score.failure, score.n_missing) == ((None, 4) if lost == "A" else ("refused", 8))
        assert math.isnan(score.value) == (lost == "AB")


def test_on_0_to_10_ones_and_zeros_are_what_they_say_and_shares_are_tenths() -> None:
    assert parse_scores('{"A": 1, "B": 0}', "AB", 10) == {"A": 1, "B": 0}
    assert parse_scores('{"A": 1, "B": 0}', "AB") == {"A": 100, "B": 0}
    assert parse_scores('{"A": "8/10", "B": "2/10"}', "AB", 10) == {"A": 8, "B": 2}
    assert parse_scores('{"A": 0.8, "B": 0.1}', "AB", 10) == {"A": 8, "B": 1}
    assert parse_scores('{"A": 7.5, "B": 0.5}', "AB", 10) == {"A": 7.5, "B": 0.5}
    with pytest.raises(Exception, match="outside 0 to 10"):
        parse_scores('{"A": 11, "B": 3}', "AB", 10)


def test_an_intruder_is_one_silent_image_among_four_active_ones_of_its_domain() -> None:
    places: Counter[int] = Counter()
    for latent in range(1, 41):
        drawn = intruder.draw(case(latent))
        assert len(drawn) in (4, 5)  # of 20 images two thirds are sketches
        used = [e.image_id for one in drawn for e in one.examples]
        assert len(used) == len(set(used))
        for one in drawn:
            assert [e.act == 0 for e in one.examples] == [bool(right) for right in one.truth]
            assert len({e.domain for e in one.examples}) == 1
            assert sum(one.truth) == 1
            places[one.truth.index(1)] += 1
    assert max(places.values()) - min(places.values()) <= 20


def test_who_sees_the_property_finds_the_intruder_and_who_sees_nothing_guesses() -> None:
    found = judge_task(intruder.KIND, Ruled(lambda tile, drawn: 100 - red(tile, drawn)))
    assert (found.value, found.chance, found.label) == (1, 0.2, "")
    assert (found.low, found.high) == wilson_interval(found.n, found.n)
    blind = judge_task(intruder.KIND, Ruled(lambda *_: 50.0))
    assert (blind.value, blind.n) == (pytest.approx(0.2), found.n)
    assert (
        judge_task(intruder.KIND, Ruled(truth_of), case(evidence=make_evidence(n_active=8))).failure
        == "too_few_images"
    )


def test_match_offers_six_labels_each_place_to_the_right_one_as_often() -> None:
    places: Counter[int] = Counter()
    for latent in range(1, 31):
        for one in match.draw(case(latent)):
            assert (len(one.labels), sum(one.truth), len(one.examples)) == (6, 1, 4)
            assert one.labels[one.truth.index(1)] == "red"
            assert len(set(one.labels)) == 6
            assert all(e.is_positive for e in one.examples)
            places[one.truth.index(1)] += 1
    assert max(places.values()) - min(places.values()) <= 12
    found = judge_task(match.KIND, Ruled(red, lambda label: 80.0 if label == "red" else 10.0))
    assert (found.value, found.more["pairs"], found.n) == (1, 1, 5)
    assert found.chance == pytest.approx(1 / 6)
    assert found.trials[0].images
    blind = judge_task(match.KIND, Ruled(red, lambda _label: 30.0))
    assert (blind.value, blind.more["pairs"]) == (pytest.approx(1 / 6), 0.5)
    nearly = judge_task(
        match.KIND, Ruled(red, lambda label: {"green": 90.0, "red": 80.0}.get(label, 1.0))
    )
    n_green = sum("green" in one.labels for one in match.draw(case()))
    assert nearly.value == pytest.approx(1 - n_green / 5)
    assert nearly.more["pairs"] == pytest.approx(1 - n_green / 25)


def test_with_few_other_labels_match_offers_two_and_with_none_it_is_not_asked() -> None:
    few = case()._replace(
        others=[explained(3, "green"), explained(4, "RED"), explained(5, "Green")]
    )
    assert {one.labels for one in match.draw(few)} <= {("green", "red"), ("red", "green")}
    none = judge_task(match.KIND, Ruled(red), few._replace(others=[explained(4, "red")]))
    assert none.failure == "too_few_images"


def test_a_further_label_changes_few_of_the_labels_that_are_offered() -> None:
    one = case()
    before = {label for drawn in match.draw(one) for label in drawn.labels}
    more = one._replace(others=[*one.others, explained(300, "violet")])
    after = {label for drawn in match.draw(more) for label in drawn.labels}
    assert before == set(LABELS)
    assert after == before | {"violet"}


def test_fuzz_shows_each_image_with_its_region_and_with_the_same_one_moved_away() -> None:
    judge = Ruled(truth_of)
    score = judge_task(fuzz.KIND, judge, case(heat=True))
    assert (score.value, score.n, score.chance, score.more["auroc"]) == (1, 10, 0.5, 1)
    assert (score.low, score.high) == wilson_interval(10, 10)
    marks: dict[str, list[tuple[float, np.ndarray]]] = {}
    for tiles, drawn in judge.asked:
        assert sum(drawn.truth) == 5
        for tile, right, example in zip(tiles, drawn.truth, drawn.examples, strict=True):
            assert tile.heat is not None
            marks.setdefault(tile.image_id, []).append((right, tile.heat.values))
            own = heat_of(example)
            assert own is not None
            if right:
                assert ((tile.heat.values > 0) == (own.values >= 128)).all()
            else:
                assert not ((tile.heat.values > 0) & (own.values >= 64)).any()
    assert len(marks) == 10
    for pair in marks.values():
        assert sorted(right for right, _ in pair) == [0, 1]
        assert len({int((values > 0).sum()) for _, values in pair}) == 1
    blind = judge_task(fuzz.KIND, Ruled(red), case(heat=True))
    assert (blind.value, blind.more["auroc"]) == (0.5, 0.5)
    assert judge_task(fuzz.KIND, Ruled(red), case()).failure == "too_few_images"


def test_fuzz_sends_outlined_pictures_only() -> None:
    first, second = questions(fuzz.KIND, case(heat=True))
    assert [len(question.pictures) for question in (first, second)] == [1, 1]
    plain = questions(simulate.KIND, case(heat=True))
    assert first.pictures[0].data != plain[0].pictures[0].data


def test_hits_that_count_in_part_widen_the_interval() -> None:
    assert share_interval([1, 1, 0]) == wilson_interval(2, 3)
    low, high = share_interval([1, 0.5, 0])
    assert (low, high) == (wilson_interval(1, 3).low, wilson_interval(2, 3).high)


def test_a_result_comes_back_from_its_file_as_it_was() -> None:
    score = judge_task(simulate.KIND, Ruled(lambda tile, _d: None if tile.letter == "A" else 5.0))
    assert score.trials[0].answer[0] is None
    assert from_json(TaskScore, to_json(score)).trials == score.trials


def test_a_latent_without_silent_images_gets_no_intruder() -> None:
    assert intruder.draw(case(evidence=without(make_evidence(), "silent", "hard"))) == ()
    assert set(FIRST[:5]) == {"A", "B", "C", "D", "E"}
