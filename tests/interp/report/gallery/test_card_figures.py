"""What a card draws of nulls, domains, edits and heat: the run's figures, each in its place."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from interp.report.figures import fixed
from interp.report.gallery import build_gallery
from interp.run.run import Run
from tests.support.interp.browsers import Watched
from tests.support.interp.galleries import cards_of
from tests.support.interp.whole_runs import CELLS, EFFECT, NULLS, whole_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latent 0 with all that there is, on patches; latent 1 with a label and a score."""
    run = whole_run(tmp_path_factory.mktemp("whole"), grid=(7, 7))
    build_gallery(Run(run))
    return run


def place(page: Any, row: str, mark: str = "circle.dot", side: str = "cx") -> float:
    """Where a mark of a row of whiskers lies, 0 to 1."""
    found = page.evaluate(
        """([row, mark, side]) => {
          const name = [...document.querySelectorAll('.whisker-rows .name')]
            .find((one) => one.textContent === row);
          return name.nextElementSibling.querySelector(mark).getAttribute(side);
        }""",
        [row, mark, side],
    )
    return float(found.removesuffix("%")) / 100


def test_nulls_stand_on_the_axis_of_the_score_best_first(browser: Any, whole: Path) -> None:
    shown = Watched(browser, whole, "#/0")
    page = shown.page
    names = page.locator(".score .whisker-rows .name").all_inner_texts()
    assert names == [
        *("this label", "random", "look-alikes"),
        *("commonest class", "says nothing", "another's label"),
    ]
    score = Run(whole).results.score(0)
    assert score is not None
    assert place(page, "this label") == pytest.approx(score.auroc)
    assert place(page, "this label", "line.whisker", "x1") == pytest.approx(score.auroc_low)
    assert place(page, "says nothing") == pytest.approx(NULLS[0].auroc)
    assert place(page, "commonest class") == pytest.approx(NULLS[1].auroc)
    assert place(page, "another's label") == pytest.approx(0.47)
    assert place(page, "says nothing", "line.guide", "x1") == pytest.approx(score.auroc)
    support = page.inner_text(".support")
    assert f"{fixed(NULLS[1].gain)} above the best label that says nothing (class" in support
    assert shown.faults == []


def test_the_square_of_domains_has_each_cell_where_it_belongs(browser: Any, whole: Path) -> None:
    shown = Watched(browser, whole, "#/0")
    rows = shown.page.locator(".squares tbody tr")
    found = [
        [rows.nth(row).locator("strong").nth(column).inner_text() for column in range(2)]
        for row in range(2)
    ]
    assert found == [[fixed(CELLS[0].auroc), fixed(CELLS[1].auroc)], ["0.66", "0.88"]]
    assert rows.nth(1).locator("th").inner_text() == "photo"
    assert f"{fixed(CELLS[1].low)} to {fixed(CELLS[1].high)}" in rows.nth(0).inner_text()
    assert "shape: holds in sketches and photos" in shown.page.inner_text(".transfer")
    assert shown.faults == []


def test_edits_stand_on_an_axis_around_no_effect(browser: Any, whole: Path) -> None:
    shown = Watched(browser, whole, "#/0")
    reach = 1.1 * EFFECT.ablate_high
    for row, value, low in (
        ("taken out", EFFECT.ablate, EFFECT.ablate_low),
        ("put in", EFFECT.boost, EFFECT.boost_low),
    ):
        assert place(shown.page, row) == pytest.approx((value / reach + 1) / 2, abs=1e-3)
        at = place(shown.page, row, "line.whisker", "x1")
        assert at == pytest.approx((low / reach + 1) / 2, abs=1e-3)
    values = shown.page.locator(".causal .value").all_inner_texts()
    assert values == [fixed(EFFECT.ablate), fixed(EFFECT.boost)]
    assert "taken out of 20 of its images" in shown.page.inner_text(".causal .caption")
    assert shown.faults == []


def test_what_a_run_lacks_leaves_no_panel(browser: Any, whole: Path) -> None:
    shown = Watched(browser, whole, "#/1")
    for place_ in (".transfer", ".causal", ".squares", ".people"):
        assert shown.page.locator(place_).count() == 0, place_
    names = shown.page.locator(".score .whisker-rows .name").all_inner_texts()
    assert names[3:] == ["shuffled labels"]  # of the run as a whole; none of its own was graded
    assert "undefined" not in shown.page.inner_text("main")
    assert "NaN" not in shown.page.inner_text("main")
    assert shown.faults == []


def test_the_viewer_lays_the_heat_of_the_image_over_it(browser: Any, whole: Path) -> None:
    shown = Watched(browser, whole, "#/0")
    page = shown.page
    card = cards_of(whole)[0]
    at, _, packed = next(row for row in card["top"] if row)[0]
    page.locator("main button.frame").first.click()
    drawn = page.evaluate(
        """() => { const canvas = document.querySelector('dialog.viewer canvas.heat');
          const data = canvas.getContext('2d').getImageData(0, 0, 7, 7).data;
          return [...data].filter((_, i) => i % 4 === 3); }"""
    )
    wanted = [round(0.72 * value) for value in base64.b64decode(packed)]
    assert drawn == pytest.approx(wanted, abs=1)
    assert max(drawn) > 100
    left = float(page.locator("dialog.viewer canvas").evaluate("c => parseFloat(c.style.left)"))
    assert left == pytest.approx(card["images"][at][5][0])
    page.keyboard.press("h")
    assert not page.locator("dialog.viewer canvas").is_visible()
    page.keyboard.press("Escape")
    shown.go("#/1")
    # A silent image of the test has no heat, and the viewer says so by showing none.
    page.locator("main .half >> nth=1 >> button.frame").first.click()
    assert page.locator("dialog.viewer img").is_visible()
    assert page.locator("dialog.viewer canvas").count() == 0
    assert shown.faults == []
