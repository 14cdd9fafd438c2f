"""What `interp compare` found, in the gallery's overview."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from interp.report.changes.files import CompareInfo, Shown
from interp.report.gallery import build_gallery
from interp.run.run import Run
from sae.core.files import write_json
from tests.support.interp.browsers import Watched
from tests.support.interp.galleries import XSS, small_run


def test_the_overview_tells_what_changes_and_blind_mode_does_not(
    browser: Any, tmp_path: Path
) -> None:
    run = small_run(tmp_path)
    shown = [Shown(1, text, 1.5, 0.5, 2.5, 0.01) for text in XSS[:11]]
    shown += [Shown(0, "", -1.5, -2.5, -0.5, 1e-6), Shown(99, "gone", 1, 1, 1, 0)]
    counts = dict.fromkeys(("n_before", "n_after", "n_left_out", "n_classes", "n_tested"), 48)
    counts |= dict.fromkeys(("n_rise", "n_fall", "latents_rise", "latents_fall"), 2)
    sides = {"before": XSS[0], "after": "adapted", "clip_before": "a", "clip_after": "b"}
    info = CompareInfo(**sides, **counts, pairing="path", in_classes=True, least=0.15, shown=shown)
    write_json(run / "compare/compare.json", dataclasses.asdict(info))
    build_gallery(Run(run))
    seen = Watched(browser, run)
    panel = seen.page.locator(".changes")
    assert panel.locator("h2").inner_text() == f"What changes from {XSS[0]} to adapted"
    assert panel.locator("tbody tr").count() == 12
    assert "#0 label 0" in panel.locator("tbody").last.inner_text()
    assert "all images" in panel.locator("tbody").last.inner_text()
    seen.page.keyboard.press("b")
    seen.go("#/1")
    seen.page.keyboard.press("o")
    seen.page.wait_for_selector("body[data-shown='start']")
    assert panel.count() == 0
    assert seen.faults == []
