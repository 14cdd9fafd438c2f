"""A run of scoring: which labels are tested, what is written, and its summary."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from interp.records.types import AnsweredBy, Score
from interp.score.run import summarise
from interp.score.sampling import SampleConfig
from interp.score.statistics.means import mean_interval
from sae.core.errors import UserError
from tests.support.interp.asking import score_run, stored_summary
from tests.support.interp.latents import Source, explained
from tests.support.interp.scoring import (
    EVIDENCE,
    LATENTS,
    Scripted,
    named,
    redness,
    run,
    score,
    scores_in,
)


def test_a_run_scores_every_label_in_the_order_of_the_latents(tmp_path: Path) -> None:
    summary = run(tmp_path / "scores.jsonl", Scripted(redness))
    assert [s.latent for s in scores_in(tmp_path / "scores.jsonl")] == list(LATENTS)
    assert (summary.n_scored, summary.n_failed, summary.n_images) == (3, 0, 120)
    assert summary.usd == 3.0
    assert summary.missing_alarm is False


def test_a_second_run_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    first = run(path, Scripted(redness))
    before, judge = path.read_bytes(), Scripted(redness)
    assert run(path, judge) == first
    assert judge.asked == []
    assert path.read_bytes() == before


def test_a_new_label_a_new_judge_and_a_cured_failure_are_scored_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    waiting = Scripted(lambda image: redness(image) or None, "timeout")
    assert run(path, waiting).failures == {"timeout": 3}
    assert run(path, Scripted(redness)).failures == {}
    assert len(scores_in(path)) == 6
    judge = Scripted(redness)
    run(path, judge, labels="red cyan blue")
    assert {label for label, _, _ in judge.asked} == {"cyan"}
    other = Scripted(redness)
    other.prompt = "p2"
    run(path, other)
    assert len(other.asked) == 12


def test_other_test_images_are_another_test(tmp_path: Path) -> None:
    path, judge = tmp_path / "scores.jsonl", Scripted(redness)
    run(path, judge)
    explanations = [explained(7, "red")]
    config = SampleConfig(n_positive=10, n_negative=10)
    for _ in range(2):
        score_run(path, Source(*EVIDENCE), judge, explanations, config=config)
    assert [s.n_positive for s in scores_in(path)] == [20, 20, 20, 10]


def test_at_most_so_many_are_scored_as_the_limit_says_and_each_record_is_reported(
    tmp_path: Path,
) -> None:
    path, seen = tmp_path / "scores.jsonl", list[Score]()
    for n_done in (2, 3):
        summary = score_run(
            path,
            Source(*EVIDENCE),
            Scripted(redness),
            named(),
            limit=2,
            concurrency=lambda: 2,
            on_record=seen.append,
        )
        assert summary.n_scored == n_done
    assert seen == scores_in(path)
    assert [s.latent for s in seen] == list(LATENTS)


def test_the_stored_summary_is_that_of_the_run_itself(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    made = [run(path, Scripted(redness), control=control) for control in ("", "shuffled")]
    stored = [stored_summary(path, "scripted", "p1", c, named()) for c in ("", "shuffled")]
    assert stored == made
    assert stored_summary(path, "scripted", "p1", "", named()[:1]).n_scored == 1
    assert stored_summary(path, "scripted", "p2", "", named()).n_scored == 0


def test_the_shuffled_control_tests_labels_of_other_latents_beside_the_scores(
    tmp_path: Path,
) -> None:
    path, own = tmp_path / "scores.jsonl", ["red", "green", "blue"]
    run(path, Scripted(redness))
    judge = Scripted(redness)
    summary = run(path, judge, control="shuffled")
    rows = scores_in(path)
    assert [s.control for s in rows] == [""] * 3 + ["shuffled"] * 3
    assert all(s.label != label for s, label in zip(rows[3:], own, strict=True))
    assert {(label, text) for label, text, _ in judge.asked} == {
        (label, f"Things that are {label}.") for label in own
    }
    assert summary.control == "shuffled"
    run(path, judge, control="shuffled")
    assert len(scores_in(path)) == 6


def test_an_unknown_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--control 'random'"):
        run(tmp_path / "scores.jsonl", Scripted(redness), control="random")


SCRIPTED = AnsweredBy("scripted", "p1")


@pytest.mark.parametrize(("n_missing", "alarm"), [(0, False), (2, False), (3, True)])
def test_more_than_two_in_a_hundred_missing_answers_raise_the_alarm(
    n_missing: int, alarm: bool
) -> None:
    one = dataclasses.replace(score(Scripted(redness)), n_positive=60, n_negative=40)
    summary = summarise([dataclasses.replace(one, n_missing=n_missing)], SCRIPTED, "", range(100))
    assert (summary.missing_rate, summary.missing_alarm) == (n_missing / 100, alarm)


def test_a_summary_means_over_scored_latents_and_the_last_row_of_each() -> None:
    one = dataclasses.replace(score(Scripted(redness)), auroc=0.9)
    old = dataclasses.replace(one, auroc=0.1)
    two = dataclasses.replace(one, latent=8, auroc=0.7)
    failed = dataclasses.replace(one, latent=9, auroc=math.nan, failure="timeout")
    control = dataclasses.replace(one, auroc=0.5, control="shuffled")
    summary = summarise([old, one, two, failed, control], SCRIPTED, "", range(100))
    assert summary.auroc == pytest.approx(0.8)
    assert (summary.n_scored, summary.n_failed) == (2, 1)
    # Of two latents the mean is one of .7, .8 and .9: a quarter of the draws takes one twice.
    assert (summary.auroc_low, summary.auroc_high) == pytest.approx((0.7, 0.9))
    assert summary.rho == pytest.approx(one.rho)


def test_the_interval_of_a_mean_is_that_of_whole_latents_drawn_anew() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 100)
    low, high = mean_interval([*values, math.nan])
    error = values.std() / 10
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.004
    )
    assert mean_interval([*values, math.nan]) == (low, high)
    assert all(map(math.isnan, mean_interval([0.9, math.nan])))
