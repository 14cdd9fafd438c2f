"""Hostile words wherever a run takes words from; and faults that axe-core finds."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from interp.records.types import Evidence
from interp.report.gallery import build_gallery
from interp.run.run import Run
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.browsers import Watched
from tests.support.interp.galleries import XSS
from tests.support.paths import ROOT

PAYLOADS = [*XSS, *(f"'\"`>{one}" for one in XSS), "%3Cscript%3E", "${7*7}", "<!DOCTYPE x>", "\\"]
AXE = Path(os.environ.get("AXE_CORE", ROOT / "node_modules/axe-core/axe.min.js"))
"""axe-core's script: `npm install --no-save axe-core`."""


def hostile(one: Evidence, payload: str) -> Evidence:
    """The payload as class and file name everywhere; images are found by their rows."""
    stats = dataclasses.replace(one.stats, top_classes=((payload, 3), ("wheel", 2)))
    changed = (dataclasses.replace(e, label=payload, path=payload) for e in one.examples)
    return Evidence(stats, tuple(changed))


@pytest.fixture(scope="module")
def hostile_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built run of as many latents as there are payloads."""
    base = tmp_path_factory.mktemp("hostile")
    images = synthetic.make_images(base / "images", per_class=6)
    plain = synthetic.make_evidence(base / "images", images, len(PAYLOADS))
    evidence = [hostile(*pair) for pair in zip(plain, PAYLOADS, strict=True)]
    said, scores = [], []
    for latent, (one, words) in enumerate(zip(evidence, PAYLOADS, strict=True)):
        label = None if latent % 5 == 4 else words
        texts = {"reason": words, "provenance": words, "model": words, "provider": words}
        given = synthetic.explanation(latent, label, candidates=(words,), **texts)
        said.append(dataclasses.replace(given, description=words))
        if label:
            scores.append(synthetic.scored(one, label, reason=words, note=words, model=words))
    run = base / "results/hostile"
    synthetic.write_run(run, base / "images", images, evidence, said, scores)
    rows = np.random.default_rng(0).normal(size=(len(PAYLOADS), 8)).astype(np.float32)
    (run / "sae").mkdir()
    save_file({"W_dec": rows}, run / "sae" / "sae.safetensors")
    call = {"created": "<b>", "model": XSS[0], "provider": XSS[1], "usd": 1.0}
    call |= {"prompt": PAYLOADS, "reply": XSS[2]}
    build_gallery(Run(run), read_calls=lambda keys: dict.fromkeys(keys, call))
    return run


def test_no_view_runs_or_asks_for_anything_that_hostile_words_say(
    browser: Any, hostile_dir: Path
) -> None:
    assert len(set(PAYLOADS)) == 60
    shown = Watched(browser, hostile_dir, viewport={"width": 1280, "height": 800})
    page = shown.page
    inside = "main script, main iframe, main style, main base, main meta, main link, dialog script"
    for latent, payload in enumerate(PAYLOADS):
        shown.go(f"#/{latent}")
        assert payload in page.text_content("main")
        if latent % 12 == 0:
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            page.locator("main button.frame").first.click()
            assert payload in page.text_content("dialog.viewer")
            page.keyboard.press("Escape")
        assert page.locator(inside).count() == 0
    for address in ("#/list", "#/map", "#/"):
        page.evaluate("(hash) => { location.hash = hash; }", address)
        page.wait_for_timeout(200)
    page.fill("#query", "<script>")
    # An image of a hostile name is looked for on the disk, and is not there.
    assert [fault for fault in shown.faults if "ERR_FILE_NOT_FOUND" not in fault] == []


@pytest.mark.slow
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, hostile_dir: Path, scheme: str) -> None:
    source = AXE.read_text(encoding="utf-8")
    found = []
    for width in (1280, 390):
        options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        page = Watched(browser, hostile_dir, **options).page
        for address in ("#/", "#/2", "#/list", "#/map"):
            page.evaluate("(hash) => { location.hash = hash; }", address)
            page.wait_for_timeout(300)
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            page.evaluate(source)
            faults = page.evaluate("axe.run()")["violations"]
            bad = [f["id"] for f in faults if f["impact"] in ("serious", "critical")]
            found += [(width, address, name) for name in bad]
    assert found == []
