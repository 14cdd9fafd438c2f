"""A run's verdicts, scores and truth -> what the gallery's page needs for reviewing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.records.codec import to_json
from interp.records.support import Support, accepts_label
from interp.report.figures import number
from interp.run.run import Run
from interp.run.truth_file import read_truth
from interp.run.verdicts import fresh_reviews, review_id


def review_columns(run: Run, supports: Mapping[int, Support]) -> dict[str, Any]:
    """`review` (whose verdicts these are, and those that there are), and columns to review by.

    `gain` over the best null, where nulls were graded; `disagreement` of judge and truth, where
    both are known: how far the AUROC is from what the truth says, None where they agree.
    """
    results, info = run.results, run.evidence.info
    reviews = fresh_reviews(run.path, results).values()
    run_id = review_id(info.sae_identity, info.store_identity)
    made: dict[str, Any] = {"review": {"run": run_id, "reviews": [to_json(r) for r in reviews]}}
    latents, truth = range(info.n_latents), read_truth(run.path)
    if supports:
        gains = {latent: number(support.gain) for latent, support in supports.items()}
        made["gain"] = [gains.get(latent) for latent in latents]
    if truth:
        apart: dict[int, float | None] = {}
        for latent, told in truth.items():
            score = results.score(latent)
            if score is None or score.failure is not None or score.label != told.label:
                continue
            if accepts_label(score, supports.get(latent)) != told.is_true:
                apart[latent] = number(score.auroc if not told.is_true else 1 - score.auroc)
        made["disagreement"] = [apart.get(latent) for latent in latents]
    return made
