"""When `interp review` builds the gallery anew before it serves it."""

from __future__ import annotations

import os
from pathlib import Path

from interp.cli.pages.review import make_gallery
from interp.report.gallery import build_gallery
from interp.run.results import VERDICTS
from interp.run.run import Run
from tests.support.interp.galleries import small_run

LONG_AGO = 10**18
"""Nanoseconds since 1970."""


def test_pages_are_built_anew_for_whatever_came_since_but_a_verdict(tmp_path: Path) -> None:
    run_dir = small_run(tmp_path)
    page = run_dir / "gallery" / "panel.js"
    build_gallery(Run(run_dir))
    are_old: list[bool] = []
    for name in (VERDICTS, "causal.jsonl", "controls/shuffled/scores.jsonl"):
        for path in (page, *run_dir.rglob("*.json*")):
            os.utime(path, ns=(LONG_AGO, LONG_AGO))
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).touch()
        make_gallery(Run(run_dir))
        are_old.append(page.stat().st_mtime_ns == LONG_AGO)
    assert are_old == [True, False, False]
