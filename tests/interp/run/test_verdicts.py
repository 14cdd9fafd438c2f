"""verdicts.jsonl: what counts, what is refused, and what the rest of a run makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from interp.pipeline.judging.reviews import summarise_reviews
from interp.pipeline.workflow.summary import summarise_run
from interp.records.codec import to_json
from interp.report.labels import read_labels, write_labels
from interp.run.results import VERDICTS
from interp.run.run import Run
from interp.run.verdicts import (
    append_reviews,
    edited_explanations,
    fresh_reviews,
    newest_reviews,
    read_reviews,
)
from sae.core.errors import UserError
from sae.core.files import append_jsonl
from sae.core.lock import hold
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import small_run
from tests.support.interp.reviewing import verdict_on


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return small_run(tmp_path)


def relabel(run_dir: Path, latent: int, label: str | None) -> None:
    append_jsonl(run_dir / "explanations.jsonl", [to_json(synthetic.explanation(latent, label))])


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return read_labels(write_labels(Run(run_dir))).to_dict("records")


def test_the_last_verdict_of_a_latent_counts_until_it_is_taken_back(run_dir: Path) -> None:
    for verdict in ("wrong", "right", "withdrawn", "partly"):
        append_reviews(run_dir, [verdict_on(run_dir, 0, verdict)])
    append_reviews(run_dir, [verdict_on(run_dir, 1), verdict_on(run_dir, 1, "withdrawn")])
    found = newest_reviews(read_reviews(run_dir))
    assert {latent: review.verdict for latent, review in found.items()} == {0: "partly"}


def test_a_verdict_on_a_label_that_has_changed_counts_for_nothing(run_dir: Path) -> None:
    append_reviews(run_dir, [verdict_on(run_dir, 0, better="spoke"), verdict_on(run_dir, 1)])
    relabel(run_dir, 0, "another label")
    assert list(fresh_reviews(run_dir, Run(run_dir).results)) == [1]
    assert rows(run_dir)[0]["interpretation"] == "another label"
    assert summarise_reviews(Run(run_dir)).n_stale == 1
    relabel(run_dir, 0, "label 0")
    assert list(fresh_reviews(run_dir, Run(run_dir).results)) == [0, 1]


def test_a_torn_last_line_is_cut_off_before_the_next_verdict(run_dir: Path) -> None:
    append_reviews(run_dir, [verdict_on(run_dir, 0)])
    with (run_dir / VERDICTS).open("a") as file:
        file.write('{"id": "0123')
    append_reviews(run_dir, [verdict_on(run_dir, 1)])
    assert [review.latent for review in read_reviews(run_dir)] == [0, 1]


def test_a_long_score_keeps_no_verdict_waiting(run_dir: Path) -> None:
    working = Run(run_dir).hold()
    append_reviews(run_dir, [verdict_on(run_dir, 0)])
    working.close()
    assert len(read_reviews(run_dir)) == 1


def test_a_process_that_keeps_the_verdicts_is_named(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.run.verdicts.WAIT", 0.0)
    held = hold(run_dir / f"{VERDICTS}.lock")
    with pytest.raises(UserError, match="is working on the verdicts of"):
        append_reviews(run_dir, [verdict_on(run_dir, 0)])
    held.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "no hex"),
        ("id", ""),
        ("run", "0" * 15),
        ("label_hash", "'; drop"),
        ("at", "yesterday"),
        ("better", "x" * 201),
        ("guess", "x" * 201),
        ("note", "x" * 2001),
    ],
)
def test_a_field_that_is_none_of_ours_is_refused(run_dir: Path, field: str, value: str) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(verdict_on(run_dir, 0), **{field: value})  # type: ignore[arg-type]


def test_labels_csv_has_the_persons_words_beside_the_machines(run_dir: Path) -> None:
    review = verdict_on(run_dir, 0, "wrong", better="=spoke, rim", note="two\nlines")
    append_reviews(run_dir, [review, verdict_on(run_dir, 1)])
    first, second = rows(run_dir)
    assert first["interpretation"] == first["human_label"] == "=spoke, rim"
    assert (first["label"], first["human_verdict"]) == ("label 0", "wrong")
    assert first["human_note"] == "two\nlines"
    assert first["auroc"] == 0.9  # of the machine's label, which is what was tested
    assert (second["interpretation"], second["human_verdict"]) == ("label 1", "right")
    assert second["human_label"] == ""


def test_a_score_of_the_persons_label_stands_apart_and_only_while_it_is_the_label(
    run_dir: Path,
) -> None:
    append_reviews(run_dir, [verdict_on(run_dir, 0, "wrong", better="spoke")])
    run = Run(run_dir)
    score = synthetic.scored(run.evidence.of(0), "spoke", 0.97, explainer="person")
    (run_dir / "edited").mkdir()
    append_jsonl(run_dir / "edited" / "scores.jsonl", [to_json(score)])
    first = rows(run_dir)[0]
    assert (first["auroc"], first["human_auroc"], first["human_auroc_low"]) == (0.9, 0.97, 0.88)
    append_reviews(run_dir, [verdict_on(run_dir, 0, "wrong", better="rim")])
    assert str(rows(run_dir)[0]["human_auroc"]) == "nan"


def test_a_person_can_name_what_the_machine_did_not(run_dir: Path) -> None:
    relabel(run_dir, 0, None)
    append_reviews(run_dir, [verdict_on(run_dir, 0, "unclear", better="spoke")])
    run = Run(run_dir)
    assert rows(run_dir)[0]["interpretation"] == "spoke"
    edited = edited_explanations(fresh_reviews(run_dir, run.results), {})
    assert (edited[0].label, edited[0].model, edited[0].failure) == ("spoke", "person", None)


def test_kappa_is_of_right_or_partly_against_what_the_judge_accepts(tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=6)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 12)
    said = [synthetic.explanation(n, f"label {n}") for n in range(12)]
    # The judge accepts the first six, whose intervals lie above chance.
    scores = [
        synthetic.scored(one, f"label {n}", 0.9 if n < 6 else 0.5) for n, one in enumerate(evidence)
    ]
    run_dir = synthetic.write_run(
        tmp_path / "run", tmp_path / "images", images, evidence, said, scores
    )
    words = ["right"] * 4 + ["partly", "wrong"] + ["wrong"] * 4 + ["right", "unclear"]
    append_reviews(run_dir, [verdict_on(run_dir, n, word) for n, word in enumerate(words)])
    found = summarise_reviews(Run(run_dir))
    assert (found.n_labels, found.n_reviewed) == (12, 12)
    assert found.counts == {"right": 5, "partly": 1, "wrong": 5, "unclear": 1}
    # 11 labels: both yes 5, both no 4, one of each disagreement; by chance (6 * 6 + 5 * 5) / 121.
    agreed, chance = 9 / 11, 61 / 121
    assert found.agreement["n"] == 11
    assert found.agreement["agreed"] == pytest.approx(agreed)
    assert found.agreement["kappa"] == pytest.approx((agreed - chance) / (1 - chance))
    assert found.agreement["kappa_low"] < found.agreement["kappa"] < found.agreement["kappa_high"]
    told = summarise_run(Run(run_dir)).lines()
    assert any(
        line.startswith("People have reviewed 12 labels (5 right, 1 partly, 5 wrong, 1 unclear). ")
        and "People and judge agree on 82% of 11 labels: Cohen's kappa 0.63 [" in line
        for line in told
    )


def test_without_a_label_that_has_both_there_is_no_agreement(run_dir: Path) -> None:
    append_reviews(run_dir, [verdict_on(run_dir, 0, "unclear")])
    assert summarise_reviews(Run(run_dir)).agreement == {}
