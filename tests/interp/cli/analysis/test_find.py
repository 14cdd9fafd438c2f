"""`interp find` and `interp explain-image` as they are typed: tables, pages, JSON, bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from interp.records.codec import to_json
from interp.run.run import Run
from sae.core.files import append_jsonl
from tests.support.commands import Walk, interp
from tests.support.interp.galleries import XSS
from tests.support.interp.synthetic_run import explanation

TAGS = (
    *("html", "head", "meta", "link", "title", "style", "body", "main", "header", "h1", "h2"),
    *("p", "img", "article", "span", "dl", "div", "dt", "dd", "figure", "figcaption", "a"),
)
"""Of a page of cards."""


@pytest.fixture
def run(walk: Walk, tmp_path: Path) -> Run:
    shutil.copytree(walk.run, tmp_path / "run")
    for name in ("store", "world"):
        (tmp_path / name).symlink_to(getattr(walk, name))
    return Run(tmp_path / "run")


def _image(walk: Walk) -> Path:
    return next((walk.world / "photo").rglob("*.png"))


def test_find_prints_latent_label_score_and_support_and_writes_the_same(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_jsonl(run.explanations, [to_json(explanation(3, "wheel"))])
    figures = tmp_path / "find.json"
    words = ("find", run.path, "a", "wheel", "--top", 4, "--open", "--device", "cpu")
    assert interp(*words, "--json", figures) == 0
    printed = capsys.readouterr().out
    heads = [*["latent", "label", "match", "direction", "wording", "AUROC", "95%", "support"]]
    assert printed.splitlines()[0].split() == heads
    assert re.search(r"^ +3 +wheel +1?\d?\.\d\d", printed, re.MULTILINE)
    found = json.loads(figures.read_text())
    assert found["query"] == "a wheel"
    assert found["latents"][0]["latent"] == 3
    assert len(found["latents"]) == 4
    assert found["latents"][0]["auroc"] is None
    page = (run.path / "find" / "latents.html").read_text()
    assert page.count("<article>") == 4
    assert "<script" not in page


def test_words_that_no_latent_is_about_are_said_to_be(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_jsonl(run.explanations, [to_json(explanation(3, "wheel"))])
    figures = tmp_path / "find.json"
    for words, is_told in (("wheels", True), ("a bicycle", False)):
        assert interp("find", run.path, words, "--device", "cpu", "--json", figures) == 0
        assert ("no latent stands out" in capsys.readouterr().out) == (not is_told)
        assert json.loads(figures.read_text())["stands_out"] == is_told


def test_explain_image_writes_a_page_and_json_called_by_the_content(
    run: Run, walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = _image(walk)
    assert interp("explain-image", run.path, image, "--device", "cpu", "--top", 1) == 0
    assert "2 latents are active; the 1 most active; an image of the run" in capsys.readouterr().out
    [page, figures] = sorted((run.path / "explained").iterdir())
    assert page.stem == figures.stem == json.loads(figures.read_text())["image_id"][:16]
    found = json.loads(figures.read_text())
    assert (found["format"], found["n_active"], len(found["latents"])) == (1, 2, 1)
    assert str(tmp_path) not in figures.read_text() + page.read_text()
    assert 0 < found["latents"][0]["percentile"] <= 100
    assert interp("find", run.path, "--image", image, "--device", "cpu") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[0] == str(found["latents"][0]["latent"])


def test_what_models_and_people_wrote_stays_text(
    run: Run, walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>.png"
    shutil.copy(_image(walk), evil)
    texts = [*XSS, "\x1b[31mred\n\x07", "{{ 7 * 7 }}"]
    said = [explanation(n, texts[n % len(texts)][:200]) for n in range(16)]
    append_jsonl(run.explanations, map(to_json, said))
    assert interp("explain-image", run.path, evil, "--device", "cpu") == 0
    assert interp("find", run.path, *texts[:2], "--open", "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert not re.search(r"[\x07\x1b]", printed)
    for page in run.path.rglob("*.html"):
        html = page.read_text()
        tags = set(re.findall(r"</?([a-zA-Z][a-zA-Z0-9]*)", html))
        assert tags <= set(TAGS)
        assert len(re.findall(r"<img ", html)) == html.count('src="data:image/webp;base64,')


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("find", "RUN"), "say what to find"),
        (("find", "RUN", "wheel", "--image", "x.png"), "and not both"),
        (("find", "nowhere", "wheel"), "nowhere: no run.json"),
        (("find", "RUN", "--image", "gone.png"), "gone.png: the file is gone"),
        (("explain-image", "RUN", "gone.png"), "gone.png: the file is gone"),
        (("explain-image", "nowhere", "gone.png"), "nowhere: no run.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Run, typed: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [run.path if word == "RUN" else word for word in typed]
    assert interp(*words, "--device", "cpu") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
