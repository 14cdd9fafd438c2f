"""results/sample/: the demo's gallery as it is committed is small, names no place, and opens."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from interp.report.gallery.build import PAGE
from interp.report.labels import read_labels
from sae.interchange.hub.scrub import cut_places, require_no_key
from sae.interchange.hub.stranger import is_data_of_gallery, make_harmless
from tests.interp.report.conftest import browser, chromium
from tests.support.interp.browsers import LOADED, MAP, Watched
from tests.support.paths import ROOT

__all__ = ["browser", "chromium"]
SAMPLE = ROOT / "results" / "sample"
FILES = sorted(path for path in SAMPLE.rglob("*") if path.is_file())
TEXTS = [path for path in FILES if path.suffix in (".html", ".css", ".js", ".csv")]
MOST_BYTES = 3_000_000


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) <= MOST_BYTES
    assert {path.suffix for path in FILES} == {".csv", ".png", ".html", ".css", ".js", ".webp"}
    with Image.open(SAMPLE / "card.png") as picture:
        assert picture.size == (1280, 1500)


def test_it_names_no_place_and_holds_no_key() -> None:
    for path in TEXTS:
        text = path.read_text("utf-8")
        require_no_key(text, path.name)
        assert cut_places(text).n_places == 0, path
    assert not (SAMPLE / "gallery/local.js").exists()


def test_its_scripts_are_our_page_and_data_alone(tmp_path: Path) -> None:
    ours = {path.name for path in PAGE}
    found = {p.relative_to(SAMPLE).as_posix() for p in FILES if p.parent != SAMPLE}
    others = {name for name in found if name.removeprefix("gallery/") not in ours}
    assert [name for name in others if not is_data_of_gallery(name)] == []
    shutil.copytree(SAMPLE / "gallery/data", tmp_path / "gallery/data")
    make_harmless(tmp_path)  # refuses whatever is no call with data
    page = (SAMPLE / "gallery/index.html").read_text("utf-8")
    scripts = re.findall(r'<script src="([^"]+)"></script>', page)
    assert page.count("<script") == len(scripts)
    assert {f"gallery/{name}" for name in scripts} <= found
    assert "default-src 'none'; script-src 'self' file:;" in page


def test_it_opens_with_every_latent_and_all_images(browser: Any) -> None:
    shown = Watched(browser, SAMPLE)
    page = shown.page
    labels = read_labels(SAMPLE / "labels.csv")
    text = (SAMPLE / "gallery/data/index.js").read_text("ascii")
    meta = json.loads(text[len("G.index(") : -3])["meta"]
    assert (meta["run"], meta["has_originals"]) == ("demo", False)
    assert f"{len(labels)} latents" in page.inner_text("#summary")
    for latent in (0, 43, len(labels) - 1):
        shown.go(f"#/{latent}")
        assert min(page.evaluate(LOADED)) > 0
        said = str(labels["interpretation"][latent])
        assert page.inner_text("h1") == said or not said
    shown.go("#/43")
    assert "of the 111 images are shown here" in page.inner_text(".strip-box")
    page.locator("main button.frame").first.click()
    assert page.locator("dialog.viewer").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    page.wait_for_selector(MAP)
    page.keyboard.press("o")
    page.wait_for_selector(".start")
    assert shown.faults == []
