"""What a real browser makes of card, list, overview and map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from interp.records.codec import to_json
from interp.report.gallery import build_gallery
from interp.run.run import Run
from sae.core.files import append_jsonl
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.browsers import MAP, Watched
from tests.support.interp.galleries import FAILED, N_LATENTS, XSS, cards_of, small_run


@pytest.fixture(scope="module")
def full_dir(run_dir: Path) -> Path:
    """The built run with an SAE, hostile classes and file names beside what it has."""
    rows = np.random.default_rng(0).normal(size=(N_LATENTS, 16)).astype(np.float32)
    (run_dir / "sae").mkdir(exist_ok=True)
    save_file({"W_dec": rows}, run_dir / "sae" / "sae.safetensors")
    failed = synthetic.explanation(FAILED, None, reason=f"the server said {XSS[0]}")
    append_jsonl(run_dir / "explanations.jsonl", [to_json(failed)])

    def read_calls(keys: Any) -> dict[str, Any]:
        return {}

    build_gallery(Run(run_dir), read_calls=read_calls)
    return run_dir


def test_a_click_on_an_image_opens_it_large_and_keys_lead_on(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir, "#/9")
    page = shown.page
    first = page.locator("main button.frame").first
    first.focus()
    page.keyboard.press("Enter")
    card = cards_of(full_dir)[9]
    at, act, _ = next(row for row in card["top"] if row)[0]
    _, domain, label, path, *_ = card["images"][at]
    said = page.inner_text("dialog.viewer")
    assert label in said
    assert path in said
    assert f"activation {act:.3g}"[:14] in said
    image = page.locator("dialog.viewer img")
    shown.until("document.querySelector('dialog.viewer img').src.endsWith('.png')")
    assert ("/sketch/", "/photo/")[domain] in image.get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("dialog.viewer") != said
    page.keyboard.press("Escape")
    assert not page.locator("dialog.viewer").is_visible()
    assert page.evaluate("document.activeElement.classList.contains('frame')")
    assert shown.faults == []


def test_relatives_are_pictures_that_lead_to_their_cards(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir, "#/9")
    nearest = cards_of(full_dir)[9]["related"]["cosine"][0][0]
    shown.page.click(".related .sample >> nth=0")
    shown.page.wait_for_selector(f"body[data-shown='{nearest}']")
    assert shown.faults == []


def test_filters_narrow_the_list_and_stand_in_the_address(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir, "#/list?sort=id")
    page = shown.page
    page.click("#filters summary")
    page.select_option("#failure", "refused")
    assert page.locator(".row").count() == 1
    assert f"#{FAILED}" in page.inner_text(".row")
    assert "failure=refused" in page.url
    page.click("#clear")
    page.locator("#score-least").fill("160")  # of 200: AUROC .8 and more
    scores = [card["score"]["auroc"] for card in cards_of(full_dir) if card["score"]]
    page.reload()
    page.wait_for_selector(".row")
    assert "score=0.8~1" in page.url.replace("%7E", "~")
    said = page.inner_text("#count")
    assert int(said.split()[0]) == sum(score >= 0.8 for score in scores)
    assert shown.faults == []


def test_the_search_finds_descriptions_and_classes(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir, "#/list")
    page = shown.page
    shown.until("document.querySelectorAll('.row').length > 3")
    page.wait_for_timeout(400)  # descriptions come after the list
    page.fill("#query", "images that show wheel number 19.")
    assert page.locator(".row").count() == 1
    page.fill("#query", "leaf")  # a class of many, a label of none
    assert page.locator(".row").count() > 1
    assert shown.faults == []


def test_the_list_has_columns_on_a_wide_screen(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir, viewport={"width": 1280, "height": 800})
    page = shown.page
    page.keyboard.press("l")
    page.wait_for_selector(".heads .head-button")
    page.click(".heads button:has-text('AUROC')")
    assert "sort=worst" in page.url
    page.set_viewport_size({"width": 600, "height": 800})
    shown.until("document.querySelectorAll('.heads *').length === 0")
    assert shown.faults == []


def test_the_map_is_walked_by_keys(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir)
    page = shown.page
    page.keyboard.press("p")
    page.wait_for_selector(MAP)
    drawn = """() => { const c = document.querySelector('canvas.points');
      return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); }"""
    shown.until(drawn)
    page.focus(MAP)
    page.keyboard.press("ArrowRight")
    before = page.inner_text(".tip")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(".tip") != before
    for colouring in ("share", "cluster"):
        page.select_option("#colouring", colouring)
    page.focus(MAP)
    page.keyboard.press("ArrowUp")
    latent = page.inner_text(".tip-facts").split()[0].removeprefix("#")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"body[data-shown='{latent}']")
    assert shown.faults == []


def test_the_overview_tells_cost_failures_and_settings(browser: Any, full_dir: Path) -> None:
    shown = Watched(browser, full_dir)
    said = shown.page.inner_text("main")
    assert "Cost: $0" in said
    assert "refused" in said
    assert XSS[0] in said
    shown.page.click(".failures a")
    shown.page.wait_for_selector("body[data-view='list']")
    assert shown.page.locator(".row").count() == 1
    assert shown.faults == []


def test_prompt_and_reply_are_shown_as_text(browser: Any, tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=6)
    one = synthetic.make_evidence(tmp_path / "images", images, 1)
    said = [synthetic.explanation(0, "wheel", calls=("a" * 64,), model=XSS[3])]
    run = synthetic.write_run(tmp_path / "results/r", tmp_path / "images", images, one, said)
    call = {"created": "2026-01-02T03:04:05", "model": XSS[3], "provider": XSS[4], "usd": 0.25}
    call |= {"prompt": [XSS[0], "[image 0123]"], "reply": XSS[1]}
    build_gallery(Run(run), read_calls=lambda keys: dict.fromkeys(keys, call))
    shown = Watched(browser, run, "#/0")
    shown.page.click(".provenance summary")
    shown.page.click(".call summary")
    text = shown.page.inner_text(".call")
    for wanted in (XSS[0], XSS[1], "$0.25", "2026-01-02T03:04:05", "[image 0123]"):
        assert wanted in text
    assert shown.faults == []


def test_a_download_holds_what_the_card_says(browser: Any, full_dir: Path, tmp_path: Path) -> None:
    page = Watched(browser, full_dir, "#/9").page
    with page.expect_download() as waiting:
        page.click("button:has-text('Save data')")
    waiting.value.save_as(tmp_path / "card.json")
    held = json.loads((tmp_path / "card.json").read_text())
    assert held["id"] == 9
    assert held["explanation"]["label"] == "wheel number 9"


def test_guesses_are_counted_beside_labels_where_there_are_any(
    browser: Any, tmp_path: Path
) -> None:
    run_dir = small_run(tmp_path)

    def headline() -> dict[str, str]:
        build_gallery(Run(run_dir))
        links = Watched(browser, run_dir, "#/").page.locator(".headline a").all()
        return dict(reversed(link.inner_text().split("\n")) for link in links)

    before = headline()
    assert (before["labelled"], "unclear" in before) == ("2", False)
    guess = synthetic.explanation(0, "circle", verdict="unclear")
    append_jsonl(run_dir / "explanations.jsonl", [to_json(guess)])
    after = headline()
    assert (after["labelled"], after["unclear"]) == ("1", "1")
