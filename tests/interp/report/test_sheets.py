"""The sheets of `interp show`: which latents, and what is drawn of them."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.records.types import Evidence
from interp.report.choice import choose_telling
from interp.report.sheets import sheet_png, write_pdf, write_sheets
from interp.run.run import Run
from sae.core.errors import UserError
from tests.support.commands import interp
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import small_run
from tests.support.interp.latents import weakened

N_LATENTS = 16
DEAD, FAILED, UNSCORED = 13, 14, 15
AUROC = [0.50 + 0.03 * latent for latent in range(13)]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latent n of 0..12 scores .50 + .03 n; even ones lean to sketches, odd ones to photos."""
    base = tmp_path_factory.mktemp("sheets")
    images = synthetic.make_images(base / "images", per_class=5)
    special: dict[int, Any] = {DEAD: "dead"}
    evidence = synthetic.make_evidence(base / "images", images, N_LATENTS, special=special)
    evidence = [leaning(one) for one in evidence]
    labels = {i: f"label {i}" for i in range(N_LATENTS) if i not in (DEAD, FAILED)}
    labels[1] = "costs $5 and $\\frac{1$ \u202e\x07 " + "very long " * 30
    said = [synthetic.explanation(i, labels.get(i)) for i in range(N_LATENTS) if i != DEAD]
    scores = [synthetic.scored(evidence[i], labels[i], AUROC[i]) for i in range(13)]
    return synthetic.write_run(base / "run", base / "images", images, evidence, said, scores)


def leaning(one: Evidence) -> Evidence:
    share = one.stats.sketch_share
    lean = share if math.isnan(share) else 0.8 if one.stats.latent % 2 == 0 else 0.2
    return Evidence(dataclasses.replace(one.stats, sketch_share=lean), one.examples)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def words_drawn(monkeypatch: pytest.MonkeyPatch, run: Path, latent: int) -> list[str]:
    """Everything that is written on a sheet."""
    words: list[str] = []
    monkeypatch.setattr(
        "interp.report.canvas.Canvas.text", lambda _, x, y, text, *a, **k: words.append(text)
    )
    sheet_png(Run(run), latent)
    return words


def test_choice_runs_from_best_to_worst_and_takes_both_domains(run_dir: Path) -> None:
    chosen = choose_telling(Run(run_dir), 6)
    assert chosen == sorted(chosen, reverse=True)  # in order of the score
    assert {12, 11, 1, 0} <= set(chosen)  # best and worst of each domain
    assert sum(latent % 2 for latent in chosen) == 3
    assert {5, 6, 7} & set(chosen)  # the middle


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 1), (2, 2), (12, 12), (99, 13)])
def test_choice_has_as_many_as_asked_or_all_that_are_scored(
    run_dir: Path, n: int, expected: int
) -> None:
    chosen = choose_telling(Run(run_dir), n)
    assert len(set(chosen)) == len(chosen) == expected


def test_choice_without_scores_takes_labels_then_live_latents(tmp_path: Path) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    special: dict[int, Any] = {1: "dead", 2: "dense"}
    evidence = synthetic.make_evidence(tmp_path / "images", images, 5, special=special)
    parts = (tmp_path / "images", images, evidence)
    bare = synthetic.write_run(tmp_path / "a/run", *parts)
    assert choose_telling(Run(bare), 9) == [0, 3, 4]
    said = [synthetic.explanation(3, "wheel"), synthetic.explanation(4, None)]
    labelled = synthetic.write_run(tmp_path / "b/run", *parts, said)
    assert choose_telling(Run(labelled), 9) == [3]


def test_sheets_are_the_same_bytes_again_and_differ_by_latent(
    run_dir: Path, tmp_path: Path
) -> None:
    first = write_sheets(Run(run_dir), [2, 3], tmp_path / "a", per_side=4)
    again = write_sheets(Run(run_dir), [2, 3], tmp_path / "b", per_side=4)
    assert [path.name for path in first] == ["latent-00002.png", "latent-00003.png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert first[0].read_bytes() != first[1].read_bytes()
    assert not list(tmp_path.rglob("*.part"))
    assert b"Software" not in first[0].read_bytes()


def test_an_image_of_the_run_is_really_on_the_sheet(run_dir: Path, tmp_path: Path) -> None:
    """The strongest photo is a plain coloured form: its two colours are found on the sheet."""
    from interp.evidence.reader import EvidenceReader

    reader = EvidenceReader(run_dir)
    top = next(e for e in reader.of(2).of("explain", "top") if e.domain == "photo")
    picture = np.asarray(reader.image(top))
    colours = (tuple(picture[2, 2]), tuple(picture[-16, picture.shape[1] // 2]))
    sheet = pixels(write_sheets(Run(run_dir), [2], tmp_path)[0]).astype(int)
    for colour in colours:
        near = np.abs(sheet - np.array(colour, dtype=int)).max(axis=2) <= 3
        assert near.sum() > 200


@pytest.mark.parametrize(
    ("latent", "expected"),
    [
        (2, ["label 2", "0.56", "Strongest: sketch", "Strongest: photo", "Unseen, active"]),
        (DEAD, ["Never active", "Not scored."]),
        (FAILED, ["No label: refused", "Not scored."]),
        (UNSCORED, ["label 15", "Not scored."]),
    ],
)
def test_a_sheet_says_what_there_is_and_what_is_missing(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, latent: int, expected: Sequence[str]
) -> None:
    words = words_drawn(monkeypatch, run_dir, latent)
    assert set(expected) <= set(words)
    assert ("0.50" in words) is False


def test_a_sheet_of_patches_says_their_share_the_pooling_and_which_negatives_are_weak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = words_drawn(monkeypatch, small_run(tmp_path / "cls"), 0)
    assert {"Activation", "Unseen, silent"} <= set(usual)
    assert not any("of tokens" in words or "  weak" in words for words in usual)
    run = small_run(tmp_path / "patch", grid=(7, 7), change=weakened)
    words = words_drawn(monkeypatch, run, 0)
    assert {"Activation, max of an image's tokens", "Unseen, silent or weak"} <= set(words)
    assert any("active images (100%), 2.3% of tokens; logarithmic" in said for said in words)
    assert sum(said.endswith("  weak") for said in words) > 1


def test_any_label_can_be_drawn(run_dir: Path) -> None:
    with Image.open(io.BytesIO(sheet_png(Run(run_dir), 1))) as image:
        assert image.width == 1430


def test_an_image_that_has_gone_leaves_an_empty_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 1)
    run = synthetic.write_run(tmp_path / "run", tmp_path / "images", images, evidence)
    first = evidence[0].of("explain", "top")[0]
    (tmp_path / "images" / first.domain / first.path).unlink()
    assert "missing" in words_drawn(monkeypatch, run, 0)


def test_an_unknown_latent_is_refused_and_nothing_is_written(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="99"):
        write_sheets(Run(run_dir), [99], tmp_path / "out")
    assert not list(tmp_path.rglob("*.png*"))


def test_of_many_domains_the_strongest_are_shown_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = [f"d{number}" for number in range(7)]  # their rates fall
    images = synthetic.make_images(tmp_path / "images", domains, per_class=2)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 1)
    run = synthetic.write_run(tmp_path / "run", tmp_path / "images", images, evidence)
    words = words_drawn(monkeypatch, run, 0)
    rates = evidence[0].stats.domain_rate
    more = f"3 more domains: at most {100 * rates['d4']:.2g}% each"
    assert {"d0", "d1", "d2", "d3", more} < set(words)
    assert "d4" not in words


def test_a_sheet_without_a_label_tells_the_servers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    evidence = synthetic.make_evidence(tmp_path / "images", images, 2)
    said = [synthetic.explanation(1, None, reason="at most 1 image")]
    run = synthetic.write_run(tmp_path / "run", tmp_path / "images", images, evidence, said)
    assert "No label: refused: at most 1 image" in words_drawn(monkeypatch, run, 1)


def test_a_pdf_has_a_page_for_each_latent_and_is_the_same_bytes_again(
    run_dir: Path, tmp_path: Path
) -> None:
    first, again = (
        write_pdf(Run(run_dir), [2, 3, 13], tmp_path / name).read_bytes()
        for name in ("a.pdf", "b.pdf")
    )
    assert first == again
    assert first.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", first)) == 3
    assert b"CreationDate" not in first
    assert not list(tmp_path.glob("*.part"))
    widths = {float(box) for box in re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", first)}
    assert widths == {11 * 72}


def test_show_writes_a_pdf_where_the_name_says_so(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheets.PDF"
    assert interp("show", 2, 3, "--out", out, "--run", run_dir) == 0
    assert interp("show", 2, "--out", out, "--run", run_dir) == 0  # over an earlier one
    assert len(re.findall(rb"/Type /Page\b", out.read_bytes())) == 1
    assert interp("show", 2, "--out", out, "--masks", "--run", run_dir) == 2
    assert interp("show", 2, "--out", out / "inside", "--run", run_dir) == 2
