"""What the files of a gallery hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest

from interp.records.codec import to_json
from interp.records.types import Evidence
from interp.report.gallery import build_gallery
from interp.report.gallery.build import PAGE
from interp.report.gallery.script import script_json
from interp.report.gallery.shown import N_PER_STRATUM, N_TOP
from interp.run.results import Results
from interp.run.run import Run
from sae.core.errors import FAILURES, UserError
from sae.core.files import append_jsonl
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import (
    DEAD,
    DENSE,
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
    names = ("label", "state", "status", "failure", "supported", "score", "frequency", "thumb")
    columns = [index[name] for name in names] + index["shares"] + [index["top_classes"]["of"]]
    assert {len(column) for column in columns} == {N_LATENTS}
    assert [card["id"] for card in cards] == list(range(N_LATENTS))
    assert [card["explanation"] and card["explanation"]["label"] for card in cards] == index[
        "label"
    ]


def test_a_guess_is_marked_in_list_and_card_and_is_no_labelled_latent(tmp_path: Path) -> None:
    run_dir = small_run(tmp_path)
    guess = synthetic.explanation(0, "circle", verdict="unclear")
    both = synthetic.explanation(1, "face", verdict="several", second_label="cloud")
    append_jsonl(run_dir / "explanations.jsonl", map(to_json, (guess, both)))
    build_gallery(Run(run_dir))
    index, cards = index_of(run_dir), cards_of(run_dir)
    assert index["label"][:2] == ["circle (unclear)", "face; also cloud"]
    assert index["state"][:2] == ["unclear", "labelled"]
    assert cards[0]["explanation"]["marked_label"] == "circle (unclear)"
    assert cards[1]["explanation"]["second_label"] == "cloud"


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
    findings = Results(tmp_path)
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
    build_gallery(Run(run_dir))
    assert tree(run_dir / "gallery") == first
    assert {path.name for path in PAGE} < set(first)
    monkeypatch.undo()
    shutil.copytree(run_dir.parents[1], tmp_path / "copy", ignore=shutil.ignore_patterns("gallery"))
    build_gallery(Run(tmp_path / "copy/results/run"))
    assert tree(tmp_path / "copy/results/run/gallery") == first


def test_an_interrupted_build_leaves_the_earlier_gallery_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path)
    build_gallery(Run(run))
    before = tree(run / "gallery")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gallery(Run(run), progress=stop)
    assert tree(run / "gallery") == before
    (run / "gallery").rename(run / "gallery.old")  # as if stopped between the two renames
    monkeypatch.setattr(
        "interp.evidence.reader.EvidenceReader.image", None
    )  # thumbs must be reused
    build_gallery(Run(run))
    assert tree(run / "gallery") == before
    assert not list(run.glob("gallery.*"))


def test_an_image_that_has_gone_is_marked_and_not_linked(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    gone = next((tmp_path / "images").rglob("*.png"))
    image_id = hashlib.sha256(gone.read_bytes()).hexdigest()
    gone.unlink()
    with pytest.raises(UserError, match=r"1 of 41 images .*the file is gone") as error:
        build_gallery(Run(run))
    assert error.value.exit_code == FAILURES
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
        build_gallery(Run(run))
    assert not list(tmp_path.rglob("escaped*"))


def test_heat_maps_go_with_active_images_only(tmp_path: Path) -> None:
    run = small_run(tmp_path, grid=(7, 7))
    build_gallery(Run(run))
    card = cards_of(run)[0]
    assert all(len(heat) == 4 * math.ceil(49 / 3) for *_, heat in card["top"][0])
    assert all((heat is not None) == bool(truth) for _, truth, *_, heat in card["verdicts"])
