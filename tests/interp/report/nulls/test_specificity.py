"""Of how many other latents a label fits the images less, from answers that exist already."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from interp.pipeline.judging.specificity import measure_specificity
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import JudgeSettings
from interp.records.codec import to_json
from interp.records.tasks import MATCH, SPECIFICITY, TaskScore, Trial, share_below
from interp.report.labels import read_labels
from interp.report.nulls.specificity import N_LEAST, specificities, summary_line
from interp.run.results import Results
from interp.run.run import Run
from sae.core.errors import OK
from sae.core.files import append_jsonl, read_jsonl
from tests.support.commands import Walk, interp
from tests.support.interp.synthetic_run import explanation

LOCAL = ("--model", "local")


@pytest.fixture(scope="module")
def scored(walk: Walk) -> Path:
    """A run that was scored; copy what you change."""
    run = Path(shutil.copytree(walk.run, walk.run.with_name("specific")))
    assert interp("explain", "--run", run, *LOCAL) == OK
    assert interp("score", "--run", run, *LOCAL, "--json", run / "figures.json") == OK
    return run


def test_a_share_is_of_those_below_and_half_of_those_that_are_equal() -> None:
    assert share_below(5, [1, 5, 9, 2]) == (2 + 0.5) / 4
    assert share_below(0, [0, 0]) == 0.5


def test_the_local_judge_grades_every_label_on_the_images_of_all_other_tests(scored: Path) -> None:
    run = Run(scored)
    judge = ScoreStage(run, JudgeSettings(model="local")).local_judge()
    scores = {s.latent: s for s in run.results.scores_with_verdicts()}
    own = {
        latent: [v.image_id for v in score.verdicts if v.truth]
        for latent, score in scores.items()
        if score.failure is None
    }
    for ids in own.values():  # as they were judged: by then the encoder had seen them
        examples = [e for latent in own for e in run.evidence.of(latent).examples]
        wanted = {e.image_id: e for e in examples if e.image_id in ids}
        judge.encoder.encode((name, run.evidence.image(wanted[name])) for name in ids)
    found = specificities(run.results)
    assert set(found) == set(own)
    for latent in own:
        means = {n: judge.grade_all([scores[latent].label], of)[0].mean() for n, of in own.items()}
        others = [mean for n, mean in means.items() if n != latent]
        assert found[latent].share == pytest.approx(share_below(means[latent], others))
        assert found[latent].n == len(own) - 1


def test_own_labels_are_more_specific_than_labels_that_were_swapped(
    scored: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(scored, scored.with_name("swapped")))
    newest = Run(run).results.newest_explanations()
    before = np.mean([one.share for one in specificities(Run(run).results).values()])
    latents = [latent for latent, e in newest.items() if e.label]
    turned = zip(latents, [*latents[3:], *latents[:3]], strict=True)
    swapped = [dataclasses.replace(newest[to], latent=at, codes={}) for at, to in turned]
    append_jsonl(run / "explanations.jsonl", map(to_json, swapped))
    assert interp("score", "--run", run, *LOCAL, "--nulls", "none") == OK
    after = np.mean([one.share for one in specificities(Run(run).results).values()])
    assert before > 0.75 > 0.6 > after


def test_what_is_known_is_kept_and_measured_again_for_other_labels_alone(scored: Path) -> None:
    run = Path(shutil.copytree(scored, scored.with_name("again")))
    stage = ScoreStage(Run(run), JudgeSettings(model="local"))
    before = (run / "tasks.jsonl").read_bytes()
    assert measure_specificity(Run(run), stage)
    assert (run / "tasks.jsonl").read_bytes() == before
    (run / "tasks.jsonl").unlink()
    assert interp("score", "--run", run, *LOCAL) == OK
    assert (run / "tasks.jsonl").read_bytes() == before
    first = next(iter(read_jsonl(run / "explanations.jsonl")))
    changed = explanation(first["latent"], "something else", model="another")
    append_jsonl(run / "explanations.jsonl", [to_json(changed)])
    assert first["latent"] not in specificities(Run(run).results)
    assert interp("score", "--run", run, *LOCAL) == OK
    more = (run / "tasks.jsonl").read_bytes().removeprefix(before)
    assert [json.loads(line)["label"] for line in more.splitlines()] == ["something else"]


def test_the_summary_the_table_and_the_cards_say_it(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("score", "--run", scored, *LOCAL) == OK
    found = specificities(Run(scored).results)
    assert summary_line(found) in capsys.readouterr().out
    figures = json.loads((scored / "figures.json").read_text())
    assert figures["n_specificity"] == len(found)
    table = read_labels(scored).set_index("latent_id")["specificity"].dropna()
    assert table.to_dict() == pytest.approx({n: one.share for n, one in found.items()}, abs=1e-3)
    assert interp("cards", "--run", scored) == OK
    cards = (scored / "gallery/data/c0000.js").read_text()
    assert cards.count("fits its own images better than those of") == len(found)


# ------------------------------------------------------------------------------ of a paid judge


def matched(latent: int, label: str, answers: dict[str, float], own: float) -> TaskScore:
    """One question of `match`: what the label got, and what others got that stood beside it."""
    shown = (label, *answers)
    truth = (1.0, *(0.0 for _ in answers))
    trial = Trial(shown, truth, (own, *answers.values()), ("0" * 64,))
    line = TaskScore(
        latent, MATCH, label, "m", "j", "p", "", "i", (trial,), 1, 0, 1, 0.2, 1, 0, None, (), 0
    )
    return line


def test_questions_of_match_tell_it_where_the_judge_is_paid(tmp_path: Path) -> None:
    n = N_LEAST + 2
    labels = [f"label {latent}" for latent in range(n)]
    append_jsonl(
        tmp_path / "explanations.jsonl",
        [to_json(explanation(latent, label, model="m")) for latent, label in enumerate(labels)],
    )
    # Label 0 gets 80 of its own images and more of those of latents 1 and 2; label 1 was offered
    # to too few.
    lines = [matched(0, labels[0], {}, 80), matched(1, labels[1], {"LABEL 0": 90}, 50)]
    lines += [matched(2, labels[2], {"label 0": 90, "label 1": 0}, 50)]
    lines += [matched(latent, labels[latent], {"label 0": 10}, 50) for latent in range(3, n)]
    append_jsonl(tmp_path / "tasks.jsonl", map(to_json, lines))
    found = specificities(Results(tmp_path))
    assert list(found) == [0]
    assert found[0].share == pytest.approx((n - 3) / (n - 1))
    assert found[0].n == n - 1
    free = dataclasses.replace(lines[0], kind=SPECIFICITY, value=0.25, n=400)
    append_jsonl(tmp_path / "tasks.jsonl", [to_json(free)])
    assert specificities(Results(tmp_path))[0] == (0.25, 400)
