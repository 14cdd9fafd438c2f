"""The gallery's search by meaning: a small index of words, fetched when something is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.report.gallery import build_gallery
from interp.run.run import Run
from tests.support.interp.browsers import Watched
from tests.support.interp.galleries import XSS, index_of, small_run


def search(seen: Watched, text: str, n: int) -> list[str]:
    """The numbers in the list once it holds `n` latents."""
    seen.page.fill("#query", text)
    for _ in range(100):
        numbers: list[str] = seen.page.locator(".row [title*=number]").all_inner_texts()
        if len(numbers) == n:
            return numbers
        seen.page.wait_for_timeout(50)
    raise AssertionError(f"{text!r} finds {numbers}, not {n}")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two latents, called "wheel number 0" and "wheel number 1"."""
    return small_run(tmp_path)


def test_a_gallery_without_words_has_no_file_of_them(run: Path) -> None:
    build_gallery(Run(run))
    assert not (run / "gallery/data/words.js").exists()
    assert "has_words" not in index_of(run)


def test_a_word_finds_the_latents_that_it_means_best_first(browser: Any, run: Path) -> None:
    words = {"vehicle": [1, 0], "label 0": [1], **{text: [0] for text in XSS}}
    build_gallery(Run(run), words=words)
    seen = Watched(browser, run, "#/list")
    asked: list[str] = []
    seen.page.on("request", lambda request: asked.append(request.url.rsplit("gallery/", 1)[1]))
    assert search(seen, "a Vehicle", 2) == ["#1", "#0"]
    assert [place for place in asked if place.startswith("data/w")] == ["data/words.js"]
    assert search(seen, "bicycle", 0) == []
    assert search(seen, "vehicles", 2) == ["#1", "#0"]
    assert search(seen, "label 0", 2) == ["#1", "#0"]
    assert search(seen, "label 1", 1) == ["#1"]
    for text in XSS:
        seen.page.fill("#query", text)
    assert seen.faults == []


def test_the_count_says_how_many_were_found_by_meaning(browser: Any, run: Path) -> None:
    build_gallery(Run(run), words={"vehicle": [1]})
    seen = Watched(browser, run, "#/list")
    assert search(seen, "vehicle", 1) == ["#1"]
    assert seen.page.inner_text("#count") == "1 latent of 2 · 1 by meaning"
    assert search(seen, "label 0", 1) == ["#0"]
    assert seen.page.inner_text("#count") == "1 latent of 2"


def test_another_order_than_the_best_score_stays_as_it_was_chosen(browser: Any, run: Path) -> None:
    build_gallery(Run(run), words={"vehicle": [1, 0]})
    seen = Watched(browser, run, "#/list?sort=id")
    assert search(seen, "vehicle", 2) == ["#0", "#1"]
    assert seen.faults == []


def test_blind_mode_does_not_give_away_what_a_latent_means(browser: Any, run: Path) -> None:
    build_gallery(Run(run), words={"vehicle": [1, 0]})
    seen = Watched(browser, run, "#/list")
    assert search(seen, "vehicle", 2) == ["#1", "#0"]
    seen.page.keyboard.press("Escape")
    seen.page.keyboard.press("b")
    assert search(seen, "vehicle ", 0) == []
    assert seen.faults == []
