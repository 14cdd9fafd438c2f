"""A built gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.report.gallery import build_gallery
from interp.run.run import Run
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import (
    DEAD,
    DENSE,
    FAILED,
    N_LATENTS,
    STALE,
    UNREACHED,
    UNSCORED,
    XSS,
    hostile,
    label_of,
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built run: one of each kind of latent, the rest hostile or plain."""
    base = tmp_path_factory.mktemp("gallery")
    images = synthetic.make_images(base / "images")
    special: dict[int, Any] = {DEAD: "dead", DENSE: "dense"}
    evidence = synthetic.make_evidence(base / "images", images, N_LATENTS, special=special)
    for i, payload in enumerate(XSS):
        evidence[20 + i] = hostile(evidence[20 + i], payload)
    explanations, scores = [], []
    for one in evidence:
        latent = one.stats.latent
        if latent in (DEAD, UNREACHED):
            continue
        label = None if latent == FAILED else label_of(latent)
        explanations.append(synthetic.explanation(latent, label, candidates=(label or "",)))
        if label and latent != UNSCORED:
            earlier = "an earlier label" if latent == STALE else label
            scores.append(synthetic.scored(one, earlier, 0.5 + latent / 200))
    made = base / "results" / "run"
    synthetic.write_run(made, base / "images", images, evidence, explanations, scores)
    build_gallery(Run(made))
    return made
