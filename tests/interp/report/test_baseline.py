"""A label that predicts no better than the linear explanation says so."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import to_json
from interp.report.baseline import against_linear
from interp.report.labels import read_labels, write_labels
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
