"""A run that words can be held against."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interp.records.codec import to_json
from interp.run.run import Run
from sae.core.files import append_jsonl
from tests.support.commands import Walk
from tests.support.interp.synthetic_run import explanation


@pytest.fixture
def run(walk: Walk, tmp_path: Path) -> Run:
    """A copy of the walk's run and store, beside its world: latent 3 is called a wheel."""
    for name in ("run", "store"):
        shutil.copytree(getattr(walk, name), tmp_path / name)
    (tmp_path / "world").symlink_to(walk.world)
    made = Run(tmp_path / "run")
    append_jsonl(made.explanations, [to_json(explanation(3, "a wheel"))])
    return made
