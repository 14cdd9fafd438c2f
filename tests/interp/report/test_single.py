"""Stand-alone cards: what they show, how small they stay, and that nothing in them runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.records.codec import to_json
from interp.report.figures import fixed
from interp.report.single import MOST_BYTES, write_singles
from interp.report.single.facts import FactReader
from interp.report.single.pictures import LADDER, read_small
from interp.run.run import Run
from interp.run.verdicts import append_reviews
from sae.core.errors import UserError
from sae.core.files import append_jsonl
from tests.support.commands import interp
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import XSS, small_run
from tests.support.interp.reviewing import verdict_on
from tests.support.interp.whole_runs import CELLS, NULLS, whole_run

PICTURE = re.compile(r'<img src="data:image/webp;base64,[A-Za-z0-9+/=]+"')


def noise(domain: str, label: str, number: int) -> Image.Image:
    """What no compression makes small."""
    rng = np.random.default_rng(len(domain) * 1000 + synthetic.CLASSES.index(label) * 100 + number)
    return Image.fromarray(rng.integers(0, 255, (130, 130, 3), np.uint8))


def text_of(run: Path, latent: int = 0) -> str:
    return write_singles(Run(run), [latent])[0].read_text("utf-8")


def test_a_card_shows_all_that_the_run_has_of_its_latent(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    text = text_of(run)
    assert "<h1><bdi>label 0</bdi></h1>" in text
    assert "a person says: partly" in text
    assert "rather a rim" in text
    for value in (*(cell.auroc for cell in CELLS), *(null.auroc for null in NULLS), 0.47):
        assert fixed(value) in text
    assert "says nothing" in text
    assert "another&#39;s label" in text
    assert "shape: holds in sketches and photos" in text
    assert "1.25" in text
    assert "taken out of 20 of its images" in text
    assert re.search(r"<b>(Supported|Undecided|Not supported)</b>", text)
    score = Run(run).results.score_with_verdicts(0)
    assert score is not None
    active = [v for v in score.verdicts if v.truth]
    right = sum(v.score is not None and v.score >= 50 for v in active)
    assert f"{right} of {len(active)} right" in text
    assert text.count('class="answer') == sum(v.score is not None for v in score.verdicts)
    assert "Explainer" in text


def test_what_a_run_lacks_is_left_out(tmp_path: Path) -> None:
    text = text_of(whole_run(tmp_path), 1)
    for words in (
        "Across domains",
        "What editing",
        "a person says",
        "another&#39;s",
        "Other tests",
    ):
        assert words not in text
    assert "label 1" in text


def test_cards_are_the_same_bytes_again_and_leave_nothing_else(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    first = [path.read_bytes() for path in write_singles(Run(run), [1, 0])]
    again = [path.read_bytes() for path in write_singles(Run(run), [1, 0])]
    assert first == again
    names = sorted(path.name for path in (run / "cards").iterdir())
    assert names == ["00000.html", "00001.html"]


def test_a_card_of_large_pictures_and_endless_texts_stays_within_its_bytes(tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=24, painter=noise)
    [one] = synthetic.make_evidence(tmp_path / "images", images, 1)
    stats = dataclasses.replace(one.stats, top_classes=(("very " * 30_000, 3),))
    endless = "word " * 30_000
    said = synthetic.explanation(0, "wheel", candidates=(endless,) * 9, provenance=endless)
    said = dataclasses.replace(said, description=endless, model=endless)
    score = synthetic.scored(one, "wheel", reason=endless, note=endless)
    one = dataclasses.replace(one, stats=stats)
    run = synthetic.write_run(
        tmp_path / "results/r", tmp_path / "images", images, [one], [said], [score]
    )
    text = text_of(run)
    assert len(text.encode()) <= MOST_BYTES
    finest = len(one.of("explain", "top")), LADDER[0].n_top * 2
    assert 4 <= len(PICTURE.findall(text)) < 16 + 10 + 24
    assert finest[0] >= finest[1]


@pytest.mark.parametrize("grid", [(), (7, 7)])
def test_pictures_are_those_of_the_run_with_heat_where_it_has_patches(
    tmp_path: Path, grid: tuple[int, ...]
) -> None:
    run = Run(small_run(tmp_path, grid=grid))
    facts = FactReader(run).of(0)
    small = read_small(run.evidence, facts.images)
    for image_id, example in facts.images.items():
        plain = run.evidence.image(example)
        assert max(small[image_id].size) <= 112
        assert (
            abs(small[image_id].width / small[image_id].height - plain.width / plain.height) < 0.02
        )
        if example.heat is None:
            continue
        heat = run.evidence.heat(example)
        assert heat is not None
        plain = np.asarray(plain.resize(small[image_id].size), float)
        share = 0.72 * heat.spread(small[image_id].size)[..., None] / 255
        wanted = plain + share * (np.array([225, 40, 90]) - plain)
        shown = np.asarray(small[image_id], float)
        hot = heat.spread(small[image_id].size) > 150
        assert abs(shown - wanted).mean() < 4
        assert abs(shown - plain)[hot].mean() > 20
    assert bool(grid) == any(example.heat for example in facts.images.values())


def test_a_persons_label_is_the_heading(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    append_reviews(run, [verdict_on(run, 0, "wrong", better="spoke")])
    text = text_of(run)
    assert "<h1><bdi>spoke</bdi></h1>" in text
    assert "the machine said <em><bdi>label 0</bdi></em>" in text


def test_a_missing_image_is_said_and_fails_the_command_with_the_card_written(
    tmp_path: Path,
) -> None:
    run = small_run(tmp_path)
    top = Run(run).evidence.of(0).of("explain", "top")[0]
    (tmp_path / "images" / top.domain / top.path).unlink()
    assert interp("cards", "--single", "--latents", "0", "--run", run) == 4
    text = (run / "cards/00000.html").read_text("utf-8")
    assert "image missing" in text
    assert PICTURE.search(text)


def test_failed_and_dead_latents_are_told_in_words(tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 3, special={1: "dead"})
    said = [synthetic.explanation(0, None, reason="it said no")]
    run = synthetic.write_run(tmp_path / "results/r", tmp_path / "images", images, evidence, said)
    texts = [path.read_text("utf-8") for path in write_singles(Run(run), [0, 1, 2])]
    for text, words in zip(
        texts, ("it said no", "active on no image", "Not labelled"), strict=True
    ):
        assert words in text


def test_nothing_runs_or_asks_in_cards_of_hostile_texts(browser: Any, tmp_path: Path) -> None:
    n = len(XSS) // 4
    images = synthetic.make_images(tmp_path / "images", per_class=2)
    evidence = synthetic.make_evidence(tmp_path / "images", images, n)
    said, scores = [], []
    for latent, (label, text, name, note) in enumerate(zip(*[iter(XSS)] * 4, strict=True)):
        given = synthetic.explanation(latent, label, provenance=text, model=name, provider=note)
        said.append(dataclasses.replace(given, description=text))
        one = evidence[latent]
        stats = dataclasses.replace(one.stats, top_classes=((name, 3), (text, 2)))
        changed = tuple(dataclasses.replace(e, label=name) for e in one.examples)
        evidence[latent] = dataclasses.replace(one, stats=stats, examples=changed)
        scores.append(synthetic.scored(evidence[latent], label, note=note, model=name))
    parts = (tmp_path / "images", images, evidence, said, scores)
    run = synthetic.write_run(tmp_path / "results/r", *parts)
    append_reviews(run, [verdict_on(run, i, note=XSS[4 * i + 3]) for i in range(n)])
    page, faults = browser.new_page(), list[str]()
    page.on("console", lambda m: faults.append(m.text))
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("dialog", lambda d: faults.append(d.message) or d.dismiss())
    page.on(
        "request",
        lambda r: faults.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
    )
    for words, path in zip(XSS[::4], write_singles(Run(run), range(n)), strict=True):
        page.goto(path.as_uri())
        assert page.text_content("h1") == words
        assert page.locator("script, iframe, base, style ~ style, object, form").count() == 0
        loaded = page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")
        assert loaded
        shown = page.evaluate("getComputedStyle(document.querySelector('.panel')).borderRadius")
        assert shown == "12px"  # the style is ours, and is let in by its hash
    page.close()
    assert faults == []


def test_the_command_takes_numbers_ranges_and_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 6)
    said = [synthetic.explanation(n, f"label {n}") for n in range(6)]
    scores = [synthetic.scored(evidence[n], f"label {n}", 0.6 + n / 20) for n in range(5)]
    parts = (tmp_path / "images", images, evidence, said, scores)
    run = synthetic.write_run(tmp_path / "results/r", *parts)

    def written(spec: str) -> list[int]:
        for path in run.glob("cards/*.html"):
            path.unlink()
        assert interp("cards", "--single", "--latents", spec, "--run", run) == 0
        return sorted(int(path.stem) for path in run.glob("cards/*.html"))

    assert written("0, 2-3,top:2") == [0, 2, 3, 4]
    assert written("top:99") == [0, 1, 2, 3, 4]
    assert not (run / "gallery").exists()
    capsys.readouterr()
    for spec, words in {
        "top:x": "is no number, 100-120 or top:20",
        "top:0": "is no number, 100-120 or top:20",
        "99": "there is no latent 99",
        ",": "it names no latent",
        "worst:3": "is no number",
    }.items():
        assert interp("cards", "--single", "--latents", spec, "--run", run) == 2
        assert words in capsys.readouterr().err
    assert interp("cards", "--latents", "3", "--run", run) == 2
    assert "goes with --single" in capsys.readouterr().err
    append_jsonl(
        run / "explanations.jsonl", [to_json(synthetic.explanation(n, "x")) for n in range(6)]
    )
    assert interp("cards", "--single", "--run", run) == 2
    assert "has no scores" in capsys.readouterr().err


def test_no_such_latent_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="latent 7"):
        write_singles(Run(small_run(tmp_path)), [7])


def test_latents_that_are_like_it_stand_on_a_card_with_label_picture_and_likeness(
    tmp_path: Path,
) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    [one, other, third] = synthetic.make_evidence(tmp_path / "images", images, 3)
    other = dataclasses.replace(
        other, examples=tuple(dataclasses.replace(e, latent=1) for e in one.examples)
    )
    said = [synthetic.explanation(n, ("a rim", "A <b>rim", "a rim")[n]) for n in range(3)]
    score = synthetic.scored(other, "A <b>rim", 0.625)
    folder = tmp_path / "results/r"
    run = synthetic.write_run(
        folder, tmp_path / "images", images, [one, other, third], said, [score]
    )
    text = text_of(run)
    assert "Nearest directions" not in text  # the run has no SAE
    assert re.search(r"<b>#1</b> <bdi>A &lt;b&gt;rim</bdi><br>100% in common · AUROC 0.63", text)
    assert re.search(r"Of the same label</h3>.*<b>#2</b> <bdi>a rim</bdi>", text, re.DOTALL)
    relatives = text[text.index('class="relatives"') : text.index("<footer>")]
    assert len(PICTURE.findall(relatives)) == relatives.count("<li>")


def test_prompts_and_replies_stand_in_a_card_as_far_as_there_is_room(tmp_path: Path) -> None:
    run = Run(whole_run(tmp_path))
    said = dataclasses.replace(synthetic.explanation(0, "label 0"), calls=("a", "b", "c"))
    append_jsonl(run.path / "explanations.jsonl", [to_json(said)])
    call = {"created": "2026-01-31", "model": "m/<i>", "provider": "p", "usd": 0.00123}
    asked = call | {"prompt": ["Which <b>one?", "Say it."]}
    ledger = {
        "a": asked | {"reply": "<script>1</script>"},
        "b": asked | {"reply": "word " * 3000},
        "c": asked | {"prompt": ["&" * 9000], "reply": "<" * 20_000},
    }
    shown = run.path / "cards" / "00000.html"
    write_singles(Run(run.path), [0], read_calls=lambda keys: {k: ledger[k] for k in keys})
    text = shown.read_text("utf-8")
    assert "<bdi>Explainer · m/&lt;i&gt; at p · $0.0012 · 2026-01-31</bdi>" in text
    assert text.count("Which &lt;b&gt;one?\n\nSay it.") == 1
    assert text.count("That of the call before.") == 1
    assert "&lt;script&gt;1&lt;/script&gt;" in text
    assert text.count("word ") < 3000
    assert len(text.encode()) <= MOST_BYTES
    write_singles(Run(run.path), [0], read_calls=lambda keys: dict.fromkeys(keys, ledger["c"]))
    full = shown.read_text("utf-8")
    assert len(full.encode()) <= MOST_BYTES
    assert re.search(r"more calls? found no room|(&lt;){100}", full)
    assert "Prompts and replies" not in text_of(run.path)
