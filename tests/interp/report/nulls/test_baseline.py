"""A label that predicts no better than the linear explanation says so."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.cli.said import say_against_linear, say_newest
from interp.records.codec import to_json
from interp.records.types import Score
from interp.report.labels import read_labels, write_labels
from interp.report.nulls.baseline import against_linear, find_apart
from interp.run.run import Run
from sae.core.errors import OK, USAGE
from sae.core.files import append_jsonl, read_jsonl
from tests.support.commands import Walk, interp
from tests.support.interp.synthetic_run import (
    explanation,
    make_evidence,
    make_images,
    scored,
    write_run,
)

LINEAR = "local:linear:tiny"


def test_only_scores_of_one_judge_on_the_same_images_are_compared(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", per_class=6)
    evidence = make_evidence(tmp_path / "images", images, 8)
    run_dir = write_run(tmp_path / "run", tmp_path / "images", images, evidence)
    cases: list[
        tuple[float, float, dict[str, Any]]
    ] = [  # rho of the linear explanation, of the label, what the label's score has beside
        (0.4, 0.5, {}),
        (0.5, 0.4, {}),
        (0.5, 0.5, {"label": "L2"}),
        (0.4, 0.5, {"model": "another/judge"}),
        (float("nan"), 0.5, {}),
        (0.4, 0.5, {"verdicts": ()}),
        (0.4, 0.5, {"control": "shuffled"}),
    ]
    for latent, (linear, own, more) in enumerate(cases):
        label = str(more.pop("label", f"own {latent}"))
        first = explanation(latent, f"l{latent}", model=LINEAR)
        append_jsonl(run_dir / "explanations.jsonl", [to_json(first)])
        append_jsonl(run_dir / "explanations.jsonl", [to_json(explanation(latent, label))])
        baseline = scored(evidence[latent], f"l{latent}", explainer=LINEAR, rho=linear)
        score = scored(evidence[latent], label, rho=own, **more)
        append_jsonl(run_dir / "scores.jsonl", [to_json(baseline), to_json(score)])
    alone = explanation(7, "l7", model=LINEAR)
    append_jsonl(run_dir / "explanations.jsonl", [to_json(alone)])
    of_alone = scored(evidence[7], "l7", explainer=LINEAR, rho=0.4)
    append_jsonl(run_dir / "scores.jsonl", [to_json(of_alone)])
    found = against_linear(Run(run_dir).results)
    assert {latent: (one.is_beaten, one.same) for latent, one in found.items()} == {
        0: (True, False),
        1: (False, False),
        2: (False, True),
    }
    table = read_labels(write_labels(Run(run_dir)))
    assert table["beats_linear"].tolist() == ["yes", "no", "no", "", "", "", "", ""]


def test_adaptive_scores_that_ended_apart_are_compared_on_the_images_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the end each label below has the larger rho; on the common images only the first has."""
    images = make_images(tmp_path / "images", per_class=6)
    evidence = make_evidence(tmp_path / "images", images, 5)
    run_dir = write_run(tmp_path / "run", tmp_path / "images", images, evidence)

    def score(latent: int, look: int, rhos: tuple[float, ...], **more: Any) -> Score:
        whole = scored(evidence[latent], f"own {latent}")
        shown = whole.verdicts[: 3 * look]
        n_positive = sum(v.truth for v in shown)
        counts = {"n_positive": n_positive, "n_negative": len(shown) - n_positive}
        adaptive = {"stopped": "decided", "looks": look, "most_looks": 3, "rho_by_look": rhos}
        return replace(whole, verdicts=shown, rho=rhos[-1], **{**counts, **adaptive, **more})

    linear: dict[str, Any] = {"explainer": LINEAR}
    pairs = [
        (score(0, 1, (0.4,), **linear), score(0, 3, (0.5, 0.6, 0.7))),
        (score(1, 1, (0.4,), **linear), score(1, 3, (0.3, 0.6, 0.7))),
        (score(2, 3, (0.6, 0.5, 0.3), **linear), score(2, 2, (0.3, 0.4))),
        (score(3, 1, (0.4,), **linear), score(3, 3, (0.7,), rho_by_look=())),  # as older files are
        (scored(evidence[4], "l4", rho=0.4, **linear), score(4, 2, (0.5, 0.7))),  # a fixed one
    ]
    for latent, pair in enumerate(pairs):
        append_jsonl(
            run_dir / "explanations.jsonl", [to_json(explanation(latent, f"own {latent}"))]
        )
        append_jsonl(run_dir / "scores.jsonl", map(to_json, pair))
    results = Run(run_dir).results
    found = against_linear(results)
    assert {n: (one.rho, one.linear_rho) for n, one in found.items()} == {
        0: (0.5, 0.4),
        1: (0.3, 0.4),
        2: (0.4, 0.5),
    }
    assert find_apart(results) == [3, 4]
    table = read_labels(write_labels(Run(run_dir)))
    assert table["beats_linear"].tolist() == ["yes", "no", "no", "", ""]
    assert say_against_linear(results)["n_apart_from_linear"] == 2
    assert "2 labels were tested on other images than their linear" in capsys.readouterr().out
    assert say_newest(results) == {"n_shown_adaptive": 5, "n_shown_fixed": 0}


def test_the_baseline_is_made_scored_and_held_against_the_labels_that_follow(
    walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(walk.run, walk.run.with_name("linear")))
    assert interp("explain", "--run", run, "--model", "local:linear") == OK
    said = capsys.readouterr().out
    assert "latents labelled by local:linear" in said
    assert f"interp score --model local --run {run}" in said
    made = (run / "explanations.jsonl").read_bytes()
    assert interp("explain", "--run", run, "--model", "local:linear") == OK
    assert (run / "explanations.jsonl").read_bytes() == made  # what is known is not made again
    assert interp("score", "--run", run, "--model", "local:linear") == USAGE
    assert "judge with local" in capsys.readouterr().err
    assert interp("score", "--run", run, "--model", "local") == OK
    assert "the linear explanation" not in capsys.readouterr().out  # there is nothing to compare
    assert interp("explain", "--run", run, "--model", "local") == OK
    figures = tmp_path / "figures.json"
    assert interp("score", "--run", run, "--model", "local", "--json", figures) == OK
    told = json.loads(figures.read_text())
    n, n_beating = told["n_against_linear"], told["n_beating_linear"]
    assert f"{n - n_beating} of {n} labels do not beat the linear explanation's rho" in (
        capsys.readouterr().out
    )
    with (run / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [row["beats_linear"] for row in csv.DictReader(file)]
    assert (cells.count("yes"), cells.count("no")) == (n_beating, n - n_beating)
    assert n > 5
    explainers = {line["model"] for line in read_jsonl(run / "explanations.jsonl")}
    assert explainers == {"local:linear:tiny", "local"}
    said = (run / "explanations.jsonl").read_bytes()
    other = ("--clip", "tiny-conv")  # another baseline, which comes too late
    assert interp("explain", "--run", run, "--model", "local:linear", *other) == USAGE
    assert "labels by local, which local:linear would take the place of" in capsys.readouterr().err
    assert (run / "explanations.jsonl").read_bytes() == said
