"""A review by keyboard alone: from the list to a card, its verdict, the map, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from interp.report.gallery import build_gallery
from interp.run.run import Run
from tests.support.interp.browsers import MAP, Watched
from tests.support.interp.reviewing import many


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven labelled latents that have a map."""
    run = many(tmp_path_factory.mktemp("keyboard"))
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    (run / "sae").mkdir()
    save_file({"W_dec": rows}, run / "sae" / "sae.safetensors")
    build_gallery(Run(run))
    return run


def test_all_of_a_review_is_done_without_a_mouse(browser: Any, mapped: Path) -> None:
    shown = Watched(browser, mapped, viewport={"width": 1280, "height": 800})
    page, key = shown.page, shown.page.keyboard
    key.press("l")
    page.wait_for_selector("[data-view=list] .row")
    key.press("/")
    key.type("label 7")
    shown.until("document.querySelectorAll('.row').length === 1")
    for _ in range(30):  # on to the row, past filters and heads
        key.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('row')"):
            break
    key.press("Enter")
    page.wait_for_selector("body[data-shown='7']")
    key.press("1")
    page.wait_for_selector(".verdict.right[aria-pressed=true]")
    key.press("/")
    key.press("Control+a")
    key.press("Delete")
    key.press("Escape")
    for word, name in (("2", "partly"), ("3", "wrong"), ("4", "unclear")):
        before = page.get_attribute("body", "data-shown")
        key.press("n")
        page.wait_for_selector(f"body:not([data-shown='{before}'])")
        key.press(word)
        page.wait_for_selector(f".verdict.{name}[aria-pressed=true]")
    assert page.inner_text("#review-tools").startswith("4 of 11 reviewed")
    key.press("u")
    page.wait_for_selector("#review-tools >> text=3 of 11 reviewed")
    key.press("p")
    page.wait_for_selector(MAP)
    for _ in range(40):
        key.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('points')"):
            break
    key.press("ArrowRight")
    latent = page.inner_text(".tip-facts").split()[0].removeprefix("#")
    key.press("Enter")
    page.wait_for_selector(f"body[data-shown='{latent}']")
    key.press("o")
    page.wait_for_selector("body[data-shown='start']")
    assert "3 of 11 labels reviewed: 1 right, 1 partly, 1 wrong" in page.inner_text(".people")
    key.press("n")  # and back to a card that is still to be reviewed
    page.wait_for_selector(".verdict[aria-pressed=false]")
    assert page.locator(".verdict[aria-pressed=true]").count() == 0
    assert shown.faults == []


def test_the_focus_is_seen_wherever_it_is(browser: Any, mapped: Path) -> None:
    shown = Watched(browser, mapped, "#/3", viewport={"width": 1280, "height": 800})
    page = shown.page
    unseen = """() => { const at = document.activeElement, style = getComputedStyle(at);
      const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
      return seen || at === document.body ? null : at.outerHTML.slice(0, 80); }"""
    found = []
    for _ in range(45):
        page.keyboard.press("Tab")
        found.append(page.evaluate(unseen))
    assert [one for one in found if one] == []
