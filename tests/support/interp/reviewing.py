"""Verdicts as the page sends them, on the labels that a run has now; and a run to review."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Any

from interp.records.wording import hash_label, interpretation
from interp.report.gallery import build_gallery
from interp.run.run import Run
from interp.run.verdicts import Review, review_id
from tests.support.interp import synthetic_run as synthetic


def verdict_on(run_dir: Path, latent: int, verdict: Any = "right", **changes: Any) -> Review:
    run = Run(run_dir)
    said = run.results.explanation(latent)
    return dataclasses.replace(
        Review(
            id=secrets.token_hex(16),
            run=review_id(run.info.sae_identity, run.info.store_identity),
            latent=latent,
            label=interpretation(said),
            label_hash=hash_label(said),
            verdict=verdict,
        ),
        **changes,
    )


def many(tmp_path: Path, n: int = 12, change: Any = lambda one: one) -> Path:
    """A built run of `n` labelled latents, of which the last is dead."""
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    evidence = synthetic.make_evidence(tmp_path / "images", images, n, special={n - 1: "dead"})
    evidence = [*map(change, evidence)]
    said = [synthetic.explanation(i, f"label {i}") for i in range(n - 1)]
    scores = [
        synthetic.scored(e, f"label {i}", min(0.5 + i / 40, 1.0))
        for i, e in enumerate(evidence[:-1])
    ]
    run = tmp_path / "results" / "many"
    synthetic.write_run(run, tmp_path / "images", images, evidence, said, scores)
    build_gallery(Run(run))
    return run
