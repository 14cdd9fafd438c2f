"""The gallery: what its files hold, and what a real browser makes of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import to_json
from interp.records.types import Evidence
from interp.report.gallery import build_gallery
from interp.report.gallery.build import PAGE, script_json
from interp.report.gallery.cards import N_PER_STRATUM, N_TOP
from interp.run.results import read_findings
from sae.core.errors import UserError
from sae.core.files import append_jsonl
from tests.support.interp import synthetic_run as synthetic

N_LATENTS = 70  # more than one shard
DEAD, FAILED, UNREACHED, UNSCORED, STALE, DENSE = 3, 4, 5, 6, 7, 8
XSS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>alert(1)",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<a href=javascript:alert(1)>x</a>",
    "<style>@import 'http://example.org/x'</style>",
    "<link rel=stylesheet href=http://example.org/x>",
    "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "<base href=http://example.org/>",
    "]]><script>alert(1)</script>",
    "\\u003cscript>alert(1)\\u003c/script>",
    "\u2028alert(1)\u2029",
    "\u202egnp.exe",
    "`${alert(1)}`",
    "{{constructor.constructor('alert(1)')()}}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "*/alert(1)/*",
    "\\');alert(1);//",
    "__proto__",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built run: one of each kind of latent, the rest hostile or plain."""
    base = tmp_path_factory.mktemp("gallery")
    images = synthetic.make_images(base / "images")
    special: dict[int, Any] = {DEAD: "dead", DENSE: "dense"}
    evidence = synthetic.make_evidence(base / "images", images, N_LATENTS, special=special)
    for i, payload in enumerate(XSS):
        evidence[20 + i] = hostile(evidence[20 + i], payload)
    explanations, scores = [], []
    for one in evidence:
        latent = one.stats.latent
        if latent in (DEAD, UNREACHED):
            continue
        label = None if latent == FAILED else label_of(latent)
        explanations.append(synthetic.explanation(latent, label, candidates=(label or "",)))
        if label and latent != UNSCORED:
            earlier = "an earlier label" if latent == STALE else label
            scores.append(synthetic.scored(one, earlier, 0.5 + latent / 200))
    made = base / "results" / "run"
    synthetic.write_run(made, base / "images", images, evidence, explanations, scores)
    build_gallery(made)
    return made


def label_of(latent: int) -> str:
    return XSS[latent - 20] if 20 <= latent < 20 + len(XSS) else f"wheel number {latent}"


def hostile(one: Evidence, payload: str) -> Evidence:
    """The payload as every class name; file names stay true, so that the images load."""
    stats = dataclasses.replace(one.stats, top_classes=((payload, 3),))
    examples = tuple(dataclasses.replace(e, label=payload) for e in one.examples[::8])
    return Evidence(stats, examples)


def index_of(run: Path) -> dict[str, Any]:
    text = (run / "gallery/data/index.js").read_text("ascii")
    assert text.startswith("G.index(")
    assert text.endswith(");\n")
    columns: dict[str, Any] = json.loads(text[8:-3])
    return columns


def cards_of(run: Path) -> list[dict[str, Any]]:
    cards = []
    for k, path in enumerate(sorted((run / "gallery/data").glob("c*.js"))):
        text = path.read_text("ascii")
        assert text.startswith(f"G.shard({k},")
        cards += json.loads(text[len(f"G.shard({k},") : -3])
    return cards


def tree(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_script_json_holds_no_sign_that_could_end_a_script() -> None:
    text = script_json([*XSS, "é"])
    assert not set("<>&\u2028\u2029") & set(text)
    assert text.isascii()
    assert json.loads(text) == [*XSS, "é"]


def test_every_latent_has_a_row_and_a_card_of_the_same_number(run_dir: Path) -> None:
    index, cards = index_of(run_dir), cards_of(run_dir)
    assert {len(column) for name, column in index.items() if name != "meta"} == {N_LATENTS}
    assert [card["id"] for card in cards] == list(range(N_LATENTS))
    assert [card["explanation"] and card["explanation"]["label"] for card in cards] == index[
        "label"
    ]


def test_what_is_missing_is_null_and_never_zero(run_dir: Path) -> None:
    index, cards = index_of(run_dir), cards_of(run_dir)
    missing = (DEAD, FAILED, UNREACHED, UNSCORED, STALE)
    assert [index["score"][i] for i in missing] == [None] * 5
    assert index["state"][FAILED] == "failed"
    assert index["state"][UNREACHED] == index["state"][DEAD] == "unlabelled"
    assert index["status"][DEAD] == "dead"
    assert index["status"][DENSE] == "dense"
    assert cards[DEAD]["stats"]["mean"] is None
    assert cards[UNSCORED]["score"] is None
    assert cards[STALE]["score"]["stale"]
    assert not cards[9]["score"]["stale"]


def test_a_card_shows_the_strongest_images_of_each_domain_on_the_explain_side(
    run_dir: Path,
) -> None:
    card = cards_of(run_dir)[9]
    for domain, row in enumerate(card["top"]):
        acts = [act for _, act, _ in row]
        assert 1 <= len(row) <= N_TOP
        assert acts == sorted(acts, reverse=True)
        assert {card["images"][at][1] for at, _, _ in row} == {domain}
    assert [len(part) for part in card["quantiles"]] == [N_PER_STRATUM] * 5


def test_explain_and_score_images_are_kept_apart(run_dir: Path) -> None:
    for card in cards_of(run_dir):
        shown = {at for row in card["top"] + card["quantiles"] for at, *_ in row}
        assert not shown & {at for at, *_ in card["verdicts"]}


def test_verdicts_carry_truth_kind_and_answer(run_dir: Path) -> None:
    verdicts = cards_of(run_dir)[9]["verdicts"]
    assert [truth for _, truth, *_ in verdicts] == sorted((v[1] for v in verdicts), reverse=True)
    assert all((act > 0) == bool(truth) for _, truth, act, *_ in verdicts)
    assert {kind for _, truth, _, kind, *_ in verdicts if not truth} == {"hard", "silent"}
    assert all(score is None or 0 <= score <= 100 for *_, score, _ in verdicts)


def test_the_last_row_of_a_latent_counts_and_controls_do_not(tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    one = synthetic.make_evidence(tmp_path / "images", images, 1)[0]
    said = [synthetic.explanation(0, "old"), synthetic.explanation(0, "new")]
    scores = [synthetic.scored(one, "new", 0.7), synthetic.scored(one, "new", 0.8)]
    append_jsonl(tmp_path / "explanations.jsonl", map(to_json, said))
    control = to_json(synthetic.scored(one, "new", 0.1)) | {"control": "shuffled"}
    append_jsonl(tmp_path / "scores.jsonl", [*map(to_json, scores), control])
    findings = read_findings(tmp_path)
    assert findings.label(0) == "new"
    score = findings.score(0)
    assert score is not None
    assert score.auroc == 0.8


def test_each_distinct_image_is_one_small_webp(run_dir: Path) -> None:
    from PIL import Image

    wanted = {image[0] for card in cards_of(run_dir) for image in card["images"]}
    thumbs = list((run_dir / "gallery/thumbs").rglob("*.webp"))
    assert {path.stem for path in thumbs} == wanted
    assert all(path.parent.name == path.stem[:2] for path in thumbs)
    for path in thumbs[:5]:
        with Image.open(path) as image:
            assert image.format == "WEBP"
            assert max(image.size) <= 112


def test_a_second_build_gives_the_same_bytes_and_reads_no_image_again(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tree(run_dir / "gallery")
    monkeypatch.setattr("interp.evidence.reader.EvidenceReader.image", None)
    build_gallery(run_dir)
    assert tree(run_dir / "gallery") == first
    assert set(PAGE) < set(first)
    monkeypatch.undo()
    shutil.copytree(run_dir.parents[1], tmp_path / "copy", ignore=shutil.ignore_patterns("gallery"))
    build_gallery(tmp_path / "copy/results/run")
    assert tree(tmp_path / "copy/results/run/gallery") == first


def small_run(tmp_path: Path, **options: Any) -> Path:
    images = synthetic.make_images(tmp_path / "images", per_class=6)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 2, **options)
    grid = options.get("grid", ())
    said = [synthetic.explanation(i, f"label {i}") for i in range(2)]
    scores = [synthetic.scored(one, f"label {i}") for i, one in enumerate(evidence)]
    run = tmp_path / "results/small"
    return synthetic.write_run(run, tmp_path / "images", images, evidence, said, scores, grid)


def test_an_interrupted_build_leaves_the_earlier_gallery_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path)
    build_gallery(run)
    before = tree(run / "gallery")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gallery(run, progress=stop)
    assert tree(run / "gallery") == before
    (run / "gallery").rename(run / "gallery.old")  # as if stopped between the two renames
    monkeypatch.setattr(
        "interp.evidence.reader.EvidenceReader.image", None
    )  # thumbs must be reused
    build_gallery(run)
    assert tree(run / "gallery") == before
    assert not list(run.glob("gallery.*"))


def test_an_image_that_has_gone_is_marked_and_not_linked(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    gone = next((tmp_path / "images").rglob("*.png"))
    image_id = hashlib.sha256(gone.read_bytes()).hexdigest()
    gone.unlink()
    build_gallery(run)
    there = {image[0]: image[4] for card in cards_of(run) for image in card["images"]}
    assert there[image_id] == 0
    assert sum(there.values()) == len(there) - 1
    assert not (run / f"gallery/thumbs/{image_id[:2]}/{image_id}.webp").exists()


def test_an_image_id_that_is_a_path_is_refused(tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    one = synthetic.make_evidence(tmp_path / "images", images, 1)[0]
    bad = dataclasses.replace(one.examples[0], image_id="../../escaped")
    evidence = [Evidence(one.stats, (bad, *one.examples[1:]))]
    run = synthetic.write_run(tmp_path / "results/r", tmp_path / "images", images, evidence)
    with pytest.raises(UserError, match="escaped"):
        build_gallery(run)
    assert not list(tmp_path.rglob("escaped*"))


def test_heat_maps_go_with_active_images_only(tmp_path: Path) -> None:
    run = small_run(tmp_path, grid=(7, 7))
    build_gallery(run)
    card = cards_of(run)[0]
    assert all(len(heat) == 4 * math.ceil(49 / 3) for *_, heat in card["top"][0])
    assert all((heat is not None) == bool(truth) for _, truth, *_, heat in card["verdicts"])


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on the PATH")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=flags)
        yield chromium
        chromium.close()


class Watched:
    """A page with all that it should not do written down."""

    def __init__(self, browser: Any, run: Path, address: str = "", **options: Any) -> None:
        self.faults: list[str] = []
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(8000)
        self.page.on("console", lambda m: self.faults.append(f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.goto((run / "gallery/index.html").as_uri() + address)
        self.page.wait_for_selector("#title, .start")

    def go(self, address: str) -> None:
        latent = address.removeprefix("#/")
        self.page.evaluate("(hash) => { location.hash = hash; }", address)
        self.page.wait_for_selector(f"body[data-shown='{latent}']")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:,")):
            self.faults.append(f"request: {request.url}")


LOADED = """() => Promise.all([...document.querySelectorAll('main img')].map((image) => {
  image.loading = 'eager';
  return image.decode().then(() => image.naturalWidth, () => 0);
}))"""


def test_a_card_opens_from_its_address_with_images_that_load(browser: Any, run_dir: Path) -> None:
    shown = Watched(browser, run_dir, "#/9")
    assert shown.page.inner_text("h1") == "wheel number 9"
    widths = shown.page.evaluate(LOADED)
    card = cards_of(run_dir)[9]
    n_shown = sum(map(len, card["top"] + card["quantiles"])) + len(card["verdicts"])
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
    build_gallery(run)
    shown = Watched(browser, run, "#/0")
    shown.page.wait_for_selector("canvas.heat")
    drawn = """() => document.querySelector('canvas.heat').getContext('2d')
        .getImageData(0, 0, 7, 7).data.some((value) => value > 0)"""
    assert shown.page.evaluate(drawn)
    shown.page.keyboard.press("h")
    assert not shown.page.locator("canvas.heat").first.is_visible()
    assert shown.page.get_attribute("#heat", "aria-pressed") == "false"
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
