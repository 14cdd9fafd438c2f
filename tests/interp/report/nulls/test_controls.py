"""Rows side by side are of one judge and one kind of test."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.records.codec import to_json
from interp.report.nulls.controls import side_by_side
from interp.run.run import Run
from sae.core.files import append_jsonl
from tests.support.interp.synthetic_run import (
    explanation,
    make_evidence,
    make_images,
    scored,
    write_run,
)


@pytest.mark.parametrize("adaptive_last", [True, False])
def test_fixed_and_adaptive_scores_are_never_in_one_row(
    adaptive_last: bool, tmp_path: Path
) -> None:
    images = make_images(tmp_path / "images", per_class=6)
    evidence = make_evidence(tmp_path / "images", images, 4)
    run_dir = write_run(tmp_path / "run", tmp_path / "images", images, evidence)
    said = [explanation(n, f"l{n}") for n in range(4)]
    append_jsonl(run_dir / "explanations.jsonl", map(to_json, said))
    fixed = [scored(evidence[n], f"l{n}", auroc=0.9) for n in range(4)]
    adaptive = {"auroc": 0.7, "looks": 2, "most_looks": 5, "stopped": "decided"}
    own = [scored(evidence[n], f"l{n}", **adaptive) for n in range(2)]
    null = [scored(evidence[2], "l2", control="shuffled", **{**adaptive, "auroc": 0.5})]
    scores = [*fixed, *own, *null] if adaptive_last else [*own, *null, *fixed]
    append_jsonl(run_dir / "scores.jsonl", map(to_json, scores))
    rows = {row.name: (row.n_scored, row.auroc) for row in side_by_side(Run(run_dir))}
    if adaptive_last:
        assert rows == {"trained": (2, pytest.approx(0.7)), "shuffled": (1, pytest.approx(0.5))}
    else:
        assert rows == {"trained": (4, pytest.approx(0.9))}
