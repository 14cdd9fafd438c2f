"""`interp causal`: what it writes, what it does not do twice, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from interp.records.codec import from_json
from interp.records.effect import CausalEffect
from interp.report.labels import read_labels
from interp.run.run import Run
from sae.core.errors import OK, USAGE
from sae.core.files import append_jsonl, read_jsonl
from tests.support.commands import Walk, interp, sae
from tests.support.sae.small_clip import small_clip, write_images

LOCAL = ("--model", "local")


def effects(run: Path) -> list[CausalEffect]:
    return [from_json(CausalEffect, row) for row in read_jsonl(run / "causal.jsonl")]


@pytest.fixture
def run(walk: Walk) -> Path:
    """A copy of the collected run beside the store, explained."""
    copy = walk.run.with_name("causal")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(walk.run, copy)
    assert interp("explain", *LOCAL, "--run", copy) == OK
    return copy


def test_effects_stand_in_a_file_in_labels_csv_and_on_the_cards(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    assert interp("causal", "--run", run, "--json", figures) == OK
    said, found = capsys.readouterr().out, effects(run)
    assert [effect.latent for effect in found] == sorted(
        n for n, e in Run(run).results.newest_explanations().items() if e.label
    )
    summary = json.loads(figures.read_text())
    both = [effect for effect in found if effect.shown_by == "both"]
    assert summary["n_both"] == len(both) > 0
    assert f"{summary['n_both']} show an effect where the latent is taken out and" in said
    measured = [effect for effect in found if effect.failure is None]
    assert all(effect.n_controls == 8 and effect.n_texts >= 39 for effect in measured)
    table = read_labels(run).set_index("latent_id")
    for effect in measured:
        assert table["causal"][effect.latent] == effect.shown_by
        assert table["ablate"][effect.latent] == pytest.approx(effect.ablate, rel=1e-3)
        assert table["boost_low"][effect.latent] == pytest.approx(effect.boost_low, rel=1e-3)
    assert interp("cards", "--run", run) == OK
    cards = "".join(p.read_text() for p in (run / "gallery").rglob("*.js"))
    assert "The latent does what its label says: taken out of" in cards


def test_what_is_measured_is_not_measured_again_until_the_label_changes(run: Path) -> None:
    assert interp("causal", "--run", run, "--latents", "0-7") == OK
    first = (run / "causal.jsonl").read_bytes()
    assert interp("causal", "--run", run, "--latents", "0-7") == OK
    assert (run / "causal.jsonl").read_bytes() == first
    assert interp("causal", "--run", run) == OK  # the others are added
    rest = effects(run)
    assert (run / "causal.jsonl").read_bytes().startswith(first)
    assert len({effect.latent for effect in rest}) == len(rest)
    rows = read_jsonl(run / "explanations.jsonl")
    other = next(row for row in rows if row["label"] and row["label"] != rows[0]["label"])
    append_jsonl(run / "explanations.jsonl", [{**rows[0], "label": other["label"]}])
    assert Run(run).results.effect(rows[0]["latent"]) is None  # of the label before
    assert interp("causal", "--run", run) == OK
    assert [(e.latent, e.label) for e in effects(run)[len(rest) :]] == [
        (rows[0]["latent"], other["label"])
    ]


def test_labels_of_other_latents_seldom_show_an_effect_and_stand_apart(run: Path) -> None:
    assert interp("causal", "--run", run) == OK
    own = {effect.latent: effect for effect in effects(run)}
    labels = (run / "labels.csv").read_bytes()
    assert interp("causal", "--run", run, "--control", "shuffled") == OK
    dealt = effects(run)[len(own) :]
    assert {effect.control for effect in dealt} == {"shuffled"}
    assert [effect.latent for effect in dealt] == list(own)
    assert sum(effect.shown_by == "both" for effect in dealt) <= 1
    assert (run / "labels.csv").read_bytes() == labels
    assert interp("causal", "--run", run, "--control", "shufled") == USAGE


def test_without_labels_the_next_command_is_named(
    walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("causal", "--run", walk.run) == USAGE
    assert "has no explanations; run `interp explain --run" in capsys.readouterr().err


def test_latents_that_were_written_down_have_no_sae_to_edit(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.pipeline.causal.edits.dense.LAYER", "projected")
    assert interp("causal", "--run", run) == USAGE
    assert "there is no SAE to edit" in capsys.readouterr().err


def test_a_block_of_patches_is_edited_in_the_network_and_unreadable_images_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "photo", 72)
    clip = small_clip(tmp_path / "clip")
    domain = ("--domain", f"photo={tmp_path / 'photo'}")
    where = ("--out", tmp_path / "store", "--workers", 0, "--layer", 1, "--tokens", "all")
    assert sae("embed", *domain, "--clip", clip, *where) == OK
    small = ("--n-latents", 10, "--k", 1, "--epochs", 2, "--out", tmp_path / "sae")
    assert sae("train", tmp_path / "store", *small) == OK
    run = tmp_path / "run"
    collect = ("--run", run, "--dense-above", 1)
    assert interp("collect", tmp_path / "sae", tmp_path / "store", *collect) == OK
    words = tmp_path / "words.txt"
    words.write_text("".join(f"thing {n}\n" for n in range(30)))
    assert interp("explain", *LOCAL, "--run", run, "--vocabulary", words) == OK
    assert interp("causal", "--run", run) == OK
    measured = [effect for effect in effects(run) if effect.failure is None]
    assert measured
    assert not any(effect.changes_nothing for effect in measured)
    assert "no edit changed" not in capsys.readouterr().out

    files = {path: path.read_bytes() for path in (tmp_path / "photo").rglob("*.png")}
    for path in files:
        path.write_bytes(b"not what was embedded")
    (run / "causal.jsonl").unlink()
    assert interp("causal", "--run", run) == OK
    assert "unreadable_images" in {e.failure for e in effects(run)}
    assert {e.failure for e in effects(run)} <= {"unreadable_images", "too_few_images"}
    for path, content in files.items():
        path.write_bytes(content)
    assert interp("causal", "--run", run) == OK
    last = {effect.latent: effect for effect in effects(run)}
    assert [last[effect.latent] for effect in measured] == measured
