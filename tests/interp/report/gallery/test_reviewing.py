"""Verdicts in the static page: two keys a latent, two tabs keep both, blind until a guess."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from interp.pipeline.judging.reviews import summarise_reviews
from interp.records.codec import from_json, to_json
from interp.records.types import Evidence
from interp.report.figures import fixed
from interp.report.gallery import build_gallery
from interp.review.intake import Intake
from interp.run.run import Run
from interp.run.truth_file import LabelTruth, write_truth
from interp.run.verdicts import WORDS, Review, append_reviews, read_reviews
from sae.core.files import append_jsonl
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.browsers import MAP, Watched
from tests.support.interp.galleries import XSS, small_run
from tests.support.interp.reviewing import many, verdict_on

COLOURS = "() => G.found().map(G.COLOURINGS.verdict.colour())"
"""Of the latents in the order of the list."""
SECRET = "zigzag-of-brass"


@pytest.fixture
def reviewed(browser: Any, tmp_path: Path) -> Any:
    """Opens pages of one run in one browser profile: they share what is kept."""
    run = many(tmp_path)
    context = browser.new_context(accept_downloads=True)
    yield run, lambda address="": Watched(context, run, address)
    context.close()


def exported(page: Any) -> list[Review]:
    with page.expect_download() as started:
        page.locator("[data-name=export]").click()
    lines = Path(started.value.path()).read_text("utf-8").splitlines()
    return [from_json(Review, json.loads(line)) for line in lines]


def test_every_latent_is_reviewed_with_two_keys_and_the_file_goes_into_the_run(
    reviewed: Any, tmp_path: Path
) -> None:
    run, visit = reviewed
    shown = visit("#/?sort=id")
    page, pressed = shown.page, 0
    for word in [*"1234" * 2, *"123"]:
        for key in ("n", word):
            page.keyboard.press(key)
            pressed += 1
        page.wait_for_selector(f".verdict:nth-child({word})[aria-pressed=true]")
    assert pressed == 2 * 11
    assert page.inner_text("#review-tools").startswith("11 of 11 reviewed")
    page.keyboard.press("n")
    assert page.inner_text("#said") == "Every label of this list is reviewed."
    lines = exported(page)
    words = ["right", "partly", "wrong", "unclear"] * 3
    assert [(one.latent, one.verdict) for one in lines] == [*enumerate(words[:11])]
    file = tmp_path / "exported.jsonl"
    append_jsonl(file, map(to_json, lines))
    assert Intake(Run(run)).import_file(file).n_new == 11
    assert shown.faults == []


def test_a_verdict_pressed_before_the_next_card_is_there_is_on_that_card(reviewed: Any) -> None:
    _, visit = reviewed
    page = visit("#/0?sort=id").page
    page.evaluate(
        "for (const key of 'n3n') document.dispatchEvent(new KeyboardEvent('keydown', { key }))"
    )
    page.wait_for_selector("#review-tools >> text=1 of 11 reviewed")
    assert [(one.latent, one.verdict) for one in exported(page)] == [(1, "wrong")]


def test_a_better_label_and_a_note_by_keys_alone_and_undo(reviewed: Any) -> None:
    _, visit = reviewed
    shown = visit("#/3?sort=id")
    page = shown.page
    page.keyboard.press("3")
    page.keyboard.press("e")
    page.keyboard.type("brass  rim")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1 >> text='brass rim'")
    assert page.inner_text(".machine") == "the machine said label 3; the score is of that"
    page.keyboard.press("m")
    page.keyboard.type("not the hub")
    page.keyboard.press("Control+Enter")
    page.fill("#query", "brass")
    assert page.locator(".row").count() == 1
    page.fill("#query", "")
    page.keyboard.press("Escape")
    assert (page.input_value(".better"), page.input_value(".note")) == ("brass rim", "not the hub")
    [line] = exported(page)
    assert (line.verdict, line.better, line.note) == ("wrong", "brass rim", "not the hub")
    page.locator("#main").focus()
    for _ in range(2):  # the note, then the label
        page.keyboard.press("u")
    page.wait_for_selector("h1 >> text='label 3'")
    page.keyboard.press("u")
    page.wait_for_selector("#review-tools >> text=0 of 11 reviewed")
    page.keyboard.press("u")  # there is nothing left to take back
    assert shown.faults == []


def test_what_was_said_is_there_again_and_two_tabs_keep_both(reviewed: Any) -> None:
    _, visit = reviewed
    one, two = visit("#/1?sort=id"), visit("#/2?sort=id")
    one.page.keyboard.press("1")
    two.page.keyboard.press("3")
    for tab in (one, two, visit()):  # each hears of the other
        tab.page.wait_for_selector("#review-tools >> text=2 of 11 reviewed")
    assert {(line.latent, line.verdict) for line in exported(one.page)} == {
        (1, "right"),
        (2, "wrong"),
    }
    assert one.faults + two.faults == []


def test_a_label_that_has_changed_is_to_be_reviewed_again(reviewed: Any) -> None:
    run, visit = reviewed
    visit("#/1").page.keyboard.press("1")
    append_jsonl(run / "explanations.jsonl", [to_json(synthetic.explanation(1, "another"))])
    build_gallery(Run(run))
    again = visit("#/1").page
    assert again.inner_text("#review-tools").startswith("0 of 11 reviewed")
    assert again.locator(".verdict[aria-pressed=true]").count() == 0


def test_verdicts_of_the_run_are_built_in_and_filters_and_orders_follow(
    browser: Any, tmp_path: Path
) -> None:
    run = many(tmp_path)
    append_reviews(run, [verdict_on(run, 2, "wrong", better="spoke"), verdict_on(run, 4)])
    labels = [f"label {n}" for n in range(11)]
    # The judge accepts all from 6 on, where intervals lie above chance.
    write_truth(run, [LabelTruth(n, labels[n], "wheel", n in (1, 9)) for n in range(11)])
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/2?sort=id")
    page = shown.page

    def rows() -> list[int]:
        found = page.locator(".row-facts > span:first-child").all_inner_texts()
        return [int(text.removeprefix("#")) for text in found]

    assert page.inner_text("h1") == "spoke"
    for name, latents in {
        "todo": [0, 1, 3, 5, 6, 7, 8, 9, 10],
        "reviewed": [2, 4],
        "said-wrong": [2],
        "edited": [2],
    }.items():
        page.select_option("#show", name)
        assert rows() == latents, name
    page.select_option("#show", "all")
    page.select_option("#sort", "worst")
    assert rows()[:3] == [0, 1, 2]
    page.select_option("#sort", "truth")
    accepted = [n for n in range(11) if 0.5 + n / 40 - 0.09 > 0.5]
    wrong = {n: 0.5 + n / 40 for n in accepted if n not in (1, 9)} | {1: 0.5 - 1 / 40}
    assert rows()[: len(wrong)] == sorted(wrong, key=lambda n: -wrong[n])
    page.select_option("#sort", "random")
    first = rows()
    assert sorted(first) == list(range(12))
    assert first != sorted(first)
    page.reload()
    assert rows() == first
    assert shown.faults == []


def test_blind_mode_has_no_label_description_or_score_in_the_document_before_the_guess(
    browser: Any, tmp_path: Path
) -> None:
    def classed(one: Evidence) -> Evidence:
        if one.stats.status == "dead":
            return one
        stats = dataclasses.replace(one.stats, top_classes=((SECRET, 3),))
        return Evidence(stats, tuple(dataclasses.replace(e, label=SECRET) for e in one.examples))

    run = many(tmp_path, change=classed)
    said = synthetic.explanation(
        3, SECRET, description=f"a {SECRET}", candidates=(SECRET,), provenance=SECRET
    )
    score = synthetic.scored(Run(run).evidence.of(3), SECRET, 0.8125, auroc_low=0.71875)
    append_jsonl(run / "explanations.jsonl", [to_json(said)])
    append_jsonl(run / "scores.jsonl", [to_json(score)])
    (run / "sae").mkdir()
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    save_file({"W_dec": rows}, run / "sae" / "sae.safetensors")
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/3?sort=id")
    page = shown.page
    # All that the document holds, attributes, values and title: the address of what is shown too.
    whole = "document.documentElement.outerHTML + document.title + location.href"
    known = (SECRET, "0.81", "0.72", "label 2", "label 5", "AUROC 0")
    before = page.evaluate(whole)
    assert all(word in before for word in known)
    page.keyboard.press("b")
    page.wait_for_selector(".guess")
    for _ in range(2):
        hidden = page.evaluate(whole)
        assert [word for word in known if word in hidden] == []
        assert not re.search(r"0\.\d\d</", hidden)  # no row and no panel has a score
        assert page.locator(".verdict").count() == 0
        page.keyboard.press("1")  # says nothing before the guess
        for place in ("#/", "#/list"):
            page.evaluate(f"location.hash = '{place}'")
            page.wait_for_selector("#review-bar", state="hidden")
            hidden = page.evaluate(whole)
            assert [word for word in known if word in hidden] == [], place
        page.evaluate("location.hash = '#/map'")
        page.wait_for_selector(MAP)
        page.focus(MAP)
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp") * 2:
            page.keyboard.press(key)  # from latent to latent, whose names the map would tell
            assert page.locator(".tip").inner_text()
            hidden = page.evaluate(whole)
            assert [word for word in known if word in hidden] == []
            assert not re.search(r"label \d", page.locator(".tip").inner_text())
        # Nor has a colour a score to go by.
        scores = page.evaluate("G.found().map((id) => G.listed(id).score)")
        assert set(scores) == {None}
        page.evaluate("location.hash = '#/3?sort=id'")
        page.wait_for_selector(".guess")
        page.reload()  # and a reload brings nothing to light
        page.wait_for_selector(".guess")
    page.keyboard.press("e")
    page.keyboard.press("Enter")  # an empty guess is none
    assert page.locator(".guess").count() == 1
    page.keyboard.type("a spring")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"h1 >> text='{SECRET}'")
    assert "Your guess: a spring" in page.inner_text(".review-told")
    assert "label 5" not in page.evaluate(whole)  # the others are still hidden
    page.keyboard.press("2")
    [line] = exported(page)
    assert (line.verdict, line.guess, line.label) == ("partly", "a spring", SECRET)
    page.keyboard.press("n")  # the next guess can be typed at once
    page.keyboard.type("cup")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1 >> text='label 4'")
    # Also what is typed before the card is there, and would be keys of the page elsewhere.
    page.evaluate(
        """for (const key of ['n', ...'jump x', 'Backspace', 'Enter'])
             document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));"""
    )
    page.wait_for_selector("h1 >> text='label 5'")
    assert "Your guess: jump" in page.inner_text(".review-told")
    page.keyboard.press("b")
    page.wait_for_selector(".row-name >> text=label 6")
    assert shown.faults == []


def test_hostile_texts_of_people_run_nowhere(browser: Any, tmp_path: Path) -> None:
    run = many(tmp_path, len(XSS) + 1)
    said = [
        verdict_on(run, n, "wrong", better=" ".join(text.split()), note=text, guess=text)
        for n, text in enumerate(XSS)
    ]
    append_reviews(run, said)
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0?sort=id")
    for n, text in enumerate(XSS):
        shown.go(f"#/{n}")
        assert shown.page.input_value(".note") == text.replace("\r", "\n")
        assert shown.page.text_content("h1") == said[n].better
    shown.page.fill(".better", XSS[3])
    shown.page.fill(".note", XSS[0])
    shown.page.locator(".verdict.wrong").click()
    assert shown.page.text_content("h1") == XSS[3]
    assert shown.faults == []


def test_what_others_left_in_the_browser_is_passed_over(reviewed: Any) -> None:
    _, visit = reviewed
    page = visit("#/1").page
    page.keyboard.press("1")
    page.evaluate(
        """() => {
          const [name] = Object.keys(localStorage), good = JSON.parse(localStorage[name]);
          const others = [null, [], {}, 'x', { ...good, latent: 10 ** 6, label: '' },
            { ...good, latent: '__proto__' },
            { ...good, latent: 2, label: 'label 2', verdict: 'great' },
            { ...good, note: {} }, { ...good, latent: -1, label: '' }];
          others.forEach((one, i) => { localStorage[`${name}${i}`] = JSON.stringify(one); });
          localStorage[`${name} torn`] = '{';
        }"""
    )
    again = visit("#/1")
    assert again.page.inner_text("#review-tools").startswith("1 of 11 reviewed")
    assert again.faults == []


def test_a_browser_that_keeps_nothing_says_so_and_still_exports(
    browser: Any, tmp_path: Path
) -> None:
    run = small_run(tmp_path)
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/0")
    shown.page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error(); }; }")
    shown.page.keyboard.press("1")
    assert "1 verdict not saved: this browser keeps nothing" in shown.page.inner_text(
        ".review-lost"
    )
    assert [line.verdict for line in exported(shown.page)] == ["right"]


def test_a_person_names_what_has_no_label_and_a_dead_latent_has_no_bar(
    browser: Any, tmp_path: Path
) -> None:
    run = many(tmp_path)
    append_jsonl(run / "explanations.jsonl", [to_json(synthetic.explanation(5, None))])
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/5?sort=id")
    page = shown.page
    page.keyboard.press("1")
    page.keyboard.press("e")
    page.keyboard.type("spoke")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1 >> text='spoke'")
    [line] = exported(page)
    assert (line.label, line.better, line.verdict) == ("", "spoke", "unclear")
    append_reviews(run, [line])
    assert read_reviews(run)[0].better == "spoke"
    shown.go("#/11")
    assert not page.locator("#review-bar").is_visible()
    assert shown.faults == []


def test_the_map_takes_the_colours_of_verdicts(browser: Any, tmp_path: Path) -> None:
    run = many(tmp_path)
    append_reviews(run, [verdict_on(run, 2, "wrong"), verdict_on(run, 4), verdict_on(run, 5)])
    (run / "sae").mkdir()
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    save_file({"W_dec": rows}, run / "sae" / "sae.safetensors")
    build_gallery(Run(run))
    shown = Watched(browser, run, "#/?sort=id")
    page = shown.page
    page.keyboard.press("p")
    page.wait_for_selector(MAP)
    page.select_option("#colouring", "verdict")
    assert page.inner_text(".map-key").split() == [*WORDS, "not", "reviewed"]
    colours = page.evaluate(COLOURS)
    assert colours[4] == colours[5]
    assert len({colours[2], colours[4], colours[0]}) == 3
    assert len(set(colours)) == 3
    drawn = """() => { const c = document.querySelector('canvas.points');
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200 && Math.abs(d[i] - 184) < 6
        && Math.abs(d[i + 1] - 58) < 6 && Math.abs(d[i + 2] - 50) < 6) return true;
      return false; }"""
    shown.until(drawn)  # the red of "wrong" is on the map
    assert shown.faults == []


def test_the_overview_says_whether_people_and_judge_agree_as_the_command_does(
    reviewed: Any,
) -> None:
    run, visit = reviewed
    # The judge accepts the labels from 4 on, whose intervals lie above chance.
    words = ["wrong", "right", "wrong", "unclear", "right", "partly", "wrong", *["right"] * 4]
    append_reviews(run, [verdict_on(run, n, word) for n, word in enumerate(words)])
    build_gallery(Run(run))
    told = summarise_reviews(Run(run))
    shown = visit()
    said = shown.page.inner_text(".people")
    assert "11 of 11 labels reviewed: 6 right, 1 partly, 3 wrong, 1 unclear." in said
    found = shown.page.evaluate("G.review.agreement(12)")
    for name in ("n", "agreed", "kappa"):
        assert found[name] == pytest.approx(told.agreement[name]), name
    assert 0 < found["kappa"] < 1
    for name in ("low", "high"):  # samples of their own: near, not the same
        assert found[name] == pytest.approx(told.agreement[f"kappa_{name}"], abs=0.08), name
    assert f"{found['agreed']:.0%} of 10 labels: Cohen's kappa {fixed(found['kappa'])}" in said
    shown.page.evaluate("location.hash = '#/3'")
    shown.page.wait_for_selector("body[data-shown='3']")
    shown.page.keyboard.press("3")  # what is said now counts at once
    shown.page.keyboard.press("o")
    shown.page.wait_for_selector(".agreement >> text=of 11 labels")
    assert shown.faults == []


@pytest.mark.slow
def test_reviewing_50_latents_takes_two_keys_each(browser: Any, tmp_path: Path) -> None:
    run = many(tmp_path, 51)
    shown = Watched(browser, run, "#/?sort=id")
    page = shown.page
    page.evaluate(
        "() => { window.pressed = 0; addEventListener('keydown', () => { pressed += 1; }, true); }"
    )
    for n in range(50):
        page.keyboard.press("n")
        page.wait_for_selector(f"body[data-shown='{n}']")
        page.keyboard.press("1234"[n % 4])
        page.wait_for_selector(".verdict[aria-pressed=true]")
    page.wait_for_selector("#review-tools >> text=50 of 50 reviewed")
    assert page.evaluate("pressed") <= 2 * 50
    assert len(exported(page)) == 50
    assert shown.faults == []
