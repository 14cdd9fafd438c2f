"""Verdicts as the page sends them, on the labels that a run has now."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Any

from interp.records.wording import hash_label, interpretation
from interp.run.run import Run
from interp.run.verdicts import Review, review_id


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
