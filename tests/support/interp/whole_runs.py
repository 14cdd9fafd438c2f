"""A run of two latents: the first has all that a card can show, the second a label and no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from interp.records.codec import to_json
from interp.records.effect import CausalEffect
from interp.records.nulls import Null, NullTest
from interp.records.transfer import Cell, Transfer
from interp.run.run import Run
from interp.run.transfer_file import write_transfer
from interp.run.verdicts import append_reviews
from sae.core.files import append_jsonl
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import small_run
from tests.support.interp.reviewing import verdict_on

CELLS = (
    Cell(0.91, 0.83, 0.97),
    Cell(0.74, 0.61, 0.86),
    Cell(0.66, 0.55, 0.79),
    Cell(0.88, 0.79, 0.95),
)
"""Of the first latent's 2x2: sketch on sketch, sketch on photo, photo on sketch, photo on photo."""
NULLS = (
    Null("generic", "a picture", 0.52, 0.35, 0.21, 0.47),
    Null("class", "house", 0.63, 0.24, 0.12, 0.36),
)
EFFECT = CausalEffect(
    latent=0,
    label="label 0",
    clip="tiny",
    method="0" * 64,
    n_active=20,
    n_silent=18,
    n_controls=8,
    n_texts=90,
    ablate=1.25,
    ablate_low=0.75,
    ablate_high=1.75,
    boost=-0.4,
    boost_low=-0.9,
    boost_high=0.1,
    failure=None,
)


def whole_run(folder: Path, **options: Any) -> Path:
    """Nulls, control, 2x2, causal effect and a person's verdict of latent 0; patches for `grid`."""
    run = small_run(folder, **options)
    score = Run(run).results.score_with_verdicts(0)
    assert score is not None
    nulls = NullTest("free", NULLS, n_others=200, n_reached=1)
    other = synthetic.scored(Run(run).evidence.of(0), "label 1", 0.47, control="shuffled")
    lines = [dataclasses.replace(score, nulls=nulls), other]
    # The run's own score stays the last one, by which the judge is told.
    append_jsonl(run / "scores.jsonl", map(to_json, reversed(lines)))
    why, only = "", ""
    crossed = Transfer(0, "sketch", "photo", "shape", why, only, "label 0", "rim", 0.62, CELLS)
    write_transfer(run, [crossed])
    append_jsonl(run / "causal.jsonl", [to_json(EFFECT)])
    said = verdict_on(run, 0, "partly", note="rather a rim", at="2026-01-31T12:00:00Z")
    append_reviews(run, [said])
    return run
