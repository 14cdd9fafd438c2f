"""What a real browser makes of a gallery."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.records.codec import from_json, to_json
from interp.records.types import Score
from interp.report.figures import act, fixed, number, percent
from interp.report.gallery import build_gallery
from interp.report.sheets import _verdict
from interp.run.run import Run
from sae.core.files import append_jsonl, read_jsonl
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.browsers import LOADED, Watched
from tests.support.interp.galleries import (
    DEAD,
    FAILED,
    N_LATENTS,
    STALE,
    UNREACHED,
    UNSCORED,
    XSS,
    cards_of,
    index_of,
    small_run,
)
from tests.support.interp.latents import weakened


def test_a_card_opens_from_its_address_with_images_that_load(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir, "#/9")
    assert shown.page.inner_text("h1") == "wheel number 9"
    widths = shown.page.evaluate(LOADED)
    card = cards_of(run_dir)[9]
    n_shown = sum(map(len, card["top"] + card["quantiles"])) + len(card["verdicts"])
    n_shown += sum(map(len, card["related"].values()))
    assert len(widths) == n_shown
    assert min(widths) > 0
    assert all(shown.page.evaluate("[...document.images].map((i) => i.hasAttribute('alt'))"))
    assert shown.faults == []


def test_search_sort_and_filter_find_what_they_should(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir)
    page = shown.page
    page.fill("#query", "WHEEL number 65")
    assert page.locator(".row").count() == 1
    assert "#65" in page.inner_text(".row")
    page.fill("#query", "#12")
    assert "wheel number 12" in page.inner_text(".row")
    page.fill("#query", "no such thing")
    assert page.locator(".row").count() == 0
    page.fill("#query", "")
    page.select_option("#show", "dead")
    assert page.locator(".row").count() == 1
    page.select_option("#show", "all")
    page.select_option("#sort", "worst")
    assert "#0" in page.inner_text(".row >> nth=0")
    page.select_option("#sort", "score")
    assert f"#{N_LATENTS - 1}" in page.inner_text(".row >> nth=0")
    assert shown.faults == []


def test_keys_walk_the_list_and_the_address_follows(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir, "#/9?sort=id")
    page = shown.page
    page.keyboard.press("j")
    page.wait_for_selector("body[data-shown='10']")
    page.keyboard.press("k")
    page.wait_for_selector("body[data-shown='9']")
    assert page.url.endswith("#/9?sort=id")
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("#query") == "jk"
    assert page.get_attribute("body", "data-shown") == "9"
    assert shown.faults == []


def test_only_rows_in_sight_are_in_the_document(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir, viewport={"width": 1200, "height": 600})
    page = shown.page
    page.select_option("#sort", "id")
    assert page.locator(".row").count() < 30
    page.evaluate("document.getElementById('rows').scrollTop = 1e9")
    page.wait_for_selector(f".row:has-text('#{N_LATENTS - 1}')")
    assert page.locator(".row").count() < 30


def test_missing_things_are_said_in_words(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir)
    for latent, words in {
        DEAD: "active on no image",
        FAILED: "gave no label: refused",
        UNREACHED: "Nobody has looked",
        UNSCORED: "Not scored yet",
        STALE: "belongs to another label, an earlier label",
    }.items():
        shown.go(f"#/{latent}")
        assert words in shown.page.inner_text("main")
    assert shown.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_reason_of_a_failure_stands_apart_and_within_its_frame(
    browser: Any, tmp_path: Path, width: int
) -> None:
    run, reason = small_run(tmp_path), '400: {"error":"see https://x.org/' + "a" * 440 + '"}'
    first, *others = read_jsonl(run / "explanations.jsonl")
    first |= {"label": None, "failure": "bad_request", "reason": reason}
    lines = [json.dumps(row) + "\n" for row in (first, *others)]
    (run / "explanations.jsonl").write_text("".join(lines), encoding="utf-8")
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0", viewport={"width": width, "height": 800})
    assert shown.page.locator(".notice").inner_text().split("\n") == [
        "The explainer gave no label: bad request.",
        reason,
    ]
    for place in (".notice", "html"):
        over = shown.page.locator(place).evaluate("e => e.scrollWidth - e.clientWidth")
        assert over == 0, place
    assert shown.faults == []


def test_hostile_text_is_shown_as_text_and_nothing_runs(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir)
    for i, payload in enumerate(XSS):
        shown.go(f"#/{20 + i}")
        assert shown.page.text_content("h1") == payload
        assert payload in shown.page.text_content(".description")
        assert shown.page.text_content(".domains .bars:last-child dt") == payload
        title = shown.page.get_attribute(".domain-row .tile", "title")
        assert payload in title
        inside = shown.page.locator("main script, main iframe, main style, main base, main meta")
        assert inside.count() == 0
    assert shown.faults == []


def test_heat_maps_are_drawn_and_can_be_hidden(browser: Any, tmp_path: Path) -> None:
    run = small_run(tmp_path, grid=(7, 7))
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0")
    shown.page.wait_for_selector("canvas.heat")
    drawn = """() => document.querySelector('canvas.heat').getContext('2d')
        .getImageData(0, 0, 7, 7).data.some((value) => value > 0)"""
    assert shown.page.evaluate(drawn)
    shown.page.keyboard.press("h")
    assert not shown.page.locator("canvas.heat").first.is_visible()
    assert shown.page.get_attribute("#heat", "aria-pressed") == "false"
    assert shown.faults == []


def test_a_patch_latent_shows_its_share_of_tokens_its_pooling_and_its_weak_negatives(
    browser: Any, tmp_path: Path
) -> None:
    run = small_run(tmp_path, grid=(7, 7), change=weakened)
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0")
    assert "2.3% tokens" in shown.page.inner_text(".row >> nth=0")
    card = shown.page.inner_text("article.card")
    assert "patch tokens, the largest of an image" in card
    assert "OF THE TOKENS\n2.3%" in card.upper()
    assert "Weakest: it should fit these less" in card
    assert "Silent, drawn at random" not in card
    weak = shown.page.locator(".tile[title*='weak (0.01']").count()
    assert weak == sum(kind == "weak" for *_, kind, _, _ in cards_of(run)[0]["verdicts"]) > 1
    assert shown.faults == []


def test_a_missing_shard_is_told_to_the_reader(browser: Any, run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir / "gallery", tmp_path / "gallery")
    (tmp_path / "gallery/data/c0000.js").unlink()
    shown = Watched(browser, tmp_path)
    shown.go("#/1")
    assert "data/c0000.js" in shown.page.inner_text("main")


def test_nothing_runs_over_the_side_and_it_prints(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir, "#/9")
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for width, scheme in ((420, "light"), (420, "dark"), (800, "dark"), (1400, "light")):
        shown.page.set_viewport_size({"width": width, "height": 900})
        shown.page.emulate_media(color_scheme=scheme)
        assert shown.page.evaluate(over) == 0
    shown.page.emulate_media(media="print")
    assert not shown.page.locator(".side").is_visible()
    assert shown.page.locator("h1").is_visible()
    assert shown.faults == []


@pytest.mark.parametrize("names", ["photo", "sketch photo", "sketch photo scan"])
def test_texts_follow_from_the_number_of_domains(browser: Any, tmp_path: Path, names: str) -> None:
    domains = names.split()
    run = small_run(tmp_path, domains=domains)
    build_gallery(Run(run))
    shown = Watched(browser, run)
    sorts = shown.page.locator("#sort option").all_inner_texts()
    figures = shown.page.locator(".where svg.distribution")
    said = shown.page.inner_text("main")
    if len(domains) == 1:
        assert figures.count() == 0
        assert not [title for title in sorts if "photo" in title]
    elif len(domains) == 2:
        assert figures.count() == 1
        assert {"Most sketch first", "Least sketch first"} < set(sorts)
        assert "all alike" not in said
    else:
        assert figures.count() == 3
        assert {f"Most {name} first" for name in domains} < set(sorts)
        assert said.count("all alike") == 3
        shown.page.select_option("#sort", label="Most scan first")
    shown.go("#/0")
    panel = shown.page.inner_text(".domains")
    assert ("leans" in panel) == (len(domains) > 1)  # rates fall from the first domain on
    assert len(domains) == 1 or "towards sketch (share 0." in panel
    assert shown.faults == []


SIZES = {"tall": (60, 180), "wide": (180, 60)}


def ends(domain: str, label: str, number: int) -> Image.Image:
    """Red at one end, blue at the other, over its longer side; the first pixel tells them apart."""
    size = SIZES["tall" if number % 2 else "wide"]
    image = Image.new("RGB", size, (120, 200, 120))
    width, height = size
    for at in range(8):
        for across in range(min(size)):
            first, last = ((across, at), (across, height - 1 - at))
            if width > height:
                first, last = ((at, across), (width - 1 - at, across))
            image.putpixel(first, (255, 0, 0))
            image.putpixel(last, (0, 0, 255))
    image.putpixel((0, 0), (synthetic.CLASSES.index(label), number, len(domain)))
    return image


def test_frames_contain_tall_and_wide_images_from_end_to_end(browser: Any, tmp_path: Path) -> None:
    run = small_run(tmp_path, painter=ends)
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0", viewport={"width": 1400, "height": 1000})
    shown.page.evaluate(LOADED)
    seen = set()
    for frame in shown.page.locator("main .frame").all():
        inside = frame.evaluate(
            """(frame) => {
              const image = frame.querySelector('img'), at = image.getBoundingClientRect();
              const around = frame.getBoundingClientRect();
              const over = Math.max(around.left - at.left, around.top - at.top,
                at.right - around.right, at.bottom - around.bottom);
              return [over, around.width / around.height, image.naturalWidth / image.naturalHeight];
            }"""
        )
        assert inside[0] <= 0.5
        assert inside[1] == pytest.approx(1, abs=0.02)
        shape = "wide" if inside[2] > 1 else "tall"
        if shape not in seen:
            seen.add(shape)
            frame.scroll_into_view_if_needed()
            pixels = np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB"), int)
            for red, blue in ((200, 60), (60, 200)):  # both ends are to be seen
                near = (abs(pixels - [red, 20, blue]) < 90).all(axis=2)
                assert near.sum() > 20, shape
    assert seen == set(SIZES)


def test_sheet_and_gallery_write_the_same_numbers(browser: Any, run_dir: Path) -> None:
    page = Watched(browser, run_dir).page
    rng = np.random.default_rng(0)
    ties = [n / 800 for n in range(801)] + [0.845, 0.8449996, 9.996, 1234.5, 999.6, 0.0995]
    values = [*ties, *rng.random(300), *(10.0 ** rng.uniform(-5, 4, 300))]
    for name, ours in (("fixed", fixed), ("percent", percent), ("act", act)):
        kept = [number(float(value)) for value in values]
        theirs = page.evaluate(f"(values) => values.map((value) => G.{name}(value))", kept)
        assert theirs == [ours(float(value)) for value in values]
    missing = page.evaluate("[G.fixed(null), G.act(null)]")
    assert missing == [fixed(math.nan), act(math.nan)]


def test_a_shown_answer_never_contradicts_its_tick(browser: Any, tmp_path: Path) -> None:
    """49.96 of 100 does not fit: 50 must not stand beside its cross, here nor on the sheet."""
    answers = [49.5, 49.96, 49.999999, 50.0, 50.4, 62.5, 0.6, 99.9]
    run = small_run(tmp_path)
    said = [from_json(Score, row) for row in read_jsonl(run / "scores.jsonl")]
    verdicts = [
        dataclasses.replace(verdict, score=answers[place % len(answers)])
        for place, verdict in enumerate(said[0].verdicts)
    ]
    score = dataclasses.replace(said[0], verdicts=tuple(verdicts))
    append_jsonl(run / "scores.jsonl", [to_json(score)])
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0")
    marks = shown.page.locator(".mark").all_inner_texts()
    expected = sorted(
        f"{'✓' if (v.score >= 50) == v.truth else '✗'} {int(v.score)}"
        for v in verdicts
        if v.score is not None
    )
    assert sorted(" ".join(mark.split()) for mark in marks) == expected
    words = [_verdict(verdict)[0].removesuffix("  look-alike") for verdict in verdicts]
    assert sorted(words) == expected


def test_the_data_of_an_older_gallery_is_shown_by_the_newer_page(
    browser: Any, tmp_path: Path
) -> None:
    run = small_run(tmp_path)
    build_gallery(Run(run))
    data = run / "gallery/data/index.js"
    columns = index_of(run)
    (columns["share"], _) = columns.pop("shares")  # as the first version wrote it
    images, thumbs = columns.pop("images"), columns["thumb"]
    columns["thumb"] = [None if at is None else images[at] for at in thumbs]
    for name in ("score", "low", "high"):
        columns[name] = [None if v is None else v / 10_000 for v in columns[name]]
    for name in ("failure", "supported", "top_classes", "overview", "has_map"):
        columns.pop(name)
    columns["meta"] = {k: v for k, v in columns["meta"].items() if k not in ("pool", "dense_by")}
    data.write_text(f"G.index({json.dumps(columns)});\n")
    shown = Watched(browser, run)
    assert shown.page.locator(".where svg.distribution").count() == 1
    shown.page.select_option("#sort", label="Least sketch first")
    shown.go("#/0")
    assert "leans towards sketch (share 0.75)" in shown.page.inner_text(".domains")
    assert shown.faults == []
