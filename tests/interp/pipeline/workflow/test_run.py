"""`interp run`: from images to a gallery in one command, and again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from interp.report.labels import read_labels
from interp.run.run import Run
from sae.core.errors import FAILURES, INTERRUPTED, OK, USAGE
from tests.interp.pipeline.workflow.conftest import SETTINGS
from tests.support.commands import interp
from tests.support.interp.killing import run_for
from tests.support.interp.mixed_images import CUT, DOMAINS, write_mixed_images

LOCAL = ("--model", "local")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_one_command_leaves_labels_and_a_gallery_and_says_what_it_came_to(finished) -> None:
    labels = read_labels(finished.out / "labels.csv")
    assert len(labels) == 8
    assert (labels["auroc"] > 0).any()
    assert Run(finished.out).gallery.exists()
    n_labelled = int((labels["interpretation"] != "").sum())
    assert f"\n{n_labelled} have a label by local" in finished.said
    assert "It cost nothing: no model elsewhere was asked." in finished.said
    assert finished.figures["run/n_labelled"] == n_labelled
    best = labels.sort_values(["auroc", "latent_id"], ascending=[False, True]).iloc[0]
    assert finished.figures["run/best/latent"] == best["latent_id"]
    assert {"fvu", "trained/auroc", "shuffled/auroc"} <= set(finished.figures)


def test_the_same_command_again_changes_no_file(words, finished, capsys) -> None:
    before = content(finished.out)
    assert interp("run", *words, *LOCAL, "--out", finished.out) == OK
    after = content(finished.out)
    assert {name for name in before if before[name] != after.get(name)} == set()
    assert set(after) == set(before)
    said = capsys.readouterr().out
    for step in ("embed", "train", "eval", "collect", "explain", "score"):
        assert f"  {step:<9}done" in said


def test_an_estimate_writes_and_sends_nothing(words, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert interp("run", *words, *LOCAL, "--out", out, "--estimate") == OK
    assert not out.exists()
    said = capsys.readouterr().out
    assert re.search(r"300 images \(sketch \d+, photo \d+\) by tiny, projected", said)
    assert "8 latents of width 256, k 1, lr 0.004" in said
    assert "it costs nothing" in said


def test_two_kills_and_the_same_command_end_with_the_same_labels(words, finished, tmp_path) -> None:
    out = finished.out.with_name("killed")
    for seconds in (1.5, 3.0):
        run_for(lambda: interp("run", *words, *LOCAL, "--out", out), seconds)
    assert interp("run", *words, *LOCAL, "--out", out) == OK
    assert (out / "labels.csv").read_bytes() == (finished.out / "labels.csv").read_bytes()


def test_another_size_of_the_sae_is_refused_with_the_step_to_begin_from(
    words, finished, capsys
) -> None:
    assert interp("run", *words, *LOCAL, "--out", finished.out, "--n-latents", 32) == USAGE
    error = capsys.readouterr().err
    assert "trained with n_latents 8, not 32; give another --out or --from train" in error


def test_other_images_are_refused_with_the_step_to_begin_from(
    words, finished, walk, capsys
) -> None:
    names = ("--domain", f"photo={walk.world / 'photo'}", *words[3:])
    assert interp("run", *names, *LOCAL, "--out", finished.out) == USAGE
    assert "finish it as it was begun, --from embed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (("--from", "trian"), "--from 'trian' is none of embed, train,"),
        (("--transfer", "sketch,foto"), "there is no domain 'foto'"),
        (("--transfer", "sketch"), "none of auto, none and two domains"),
        (("--clip", "tinny"), "no CLIP model 'tinny'"),
        (("--domain", "photo=/nowhere"), "/nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(words, tmp_path, capsys, more, error) -> None:
    out = tmp_path / "run"
    given = [
        w for w in words if more[0] != "--domain" or not str(w).startswith(("sketch", "photo"))
    ]
    given = [w for w in given if more[0] != "--domain" or w != "--domain"]
    assert interp("run", *given, *LOCAL, *more, "--out", out) == USAGE
    assert error in capsys.readouterr().err
    assert not out.exists()


def test_what_was_interrupted_is_not_told_to_throw_away_again(
    words, finished, mine, capsys, monkeypatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.pipeline.workflow.steps.run_steps", stop)
    for typed in (("--from", "cards"), ("--from=cards",)):
        assert interp("run", *words, *LOCAL, *typed, "--out", mine) == INTERRUPTED
        error = capsys.readouterr().err
        assert "interrupted; to go on: interp run --domain" in error
        assert error.rstrip().endswith(f"--model local --out {mine}")


def test_a_folder_of_something_else_is_left_alone(words, tmp_path, capsys) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    assert interp("run", *words, *LOCAL, "--out", tmp_path) == USAGE
    assert "holds something else, no run" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["letters.txt"]


def test_without_a_clip_the_choice_is_asked_for(walk, tmp_path, capsys) -> None:
    domains = ("--domain", f"photo={walk.world / 'photo'}")
    assert interp("run", *domains, *LOCAL, "--out", tmp_path / "run") == USAGE
    assert "say which CLIP is to look at the images" in capsys.readouterr().err


def test_mixed_images_of_three_domains_with_a_file_cut_short_end_in_a_gallery(
    tmp_path, capsys
) -> None:
    domains = write_mixed_images(tmp_path / "images", 60)
    out = tmp_path / "run"
    small = ("--n-latents", 48, "--k", 2, "--epochs", 20, "--lr", "4e-3", "--no-causal")
    words = ("--domain", *domains, "--clip", "tiny", *small, *LOCAL, "--out", out)
    assert interp("run", *words) == FAILURES
    assert "1 of 61 images (1.6%) could not be read" in capsys.readouterr().err
    assert interp("run", *words, "--allow-skipped") == OK
    said = capsys.readouterr().out
    assert "60 images embedded; 1 left out" in said
    assert CUT.partition("/")[2] in (out / "store" / "skipped.csv").read_text()
    labels = read_labels(out / "labels.csv")
    assert {f"share_{name}" for name in DOMAINS} <= set(labels.columns)
    assert "images of sketch, photo and scan" in said


@pytest.fixture(scope="session")
def none_held_out(walk, tmp_path_factory) -> tuple[object, ...]:
    """Words of `interp run` on images of which training leaves none out."""
    file = tmp_path_factory.mktemp("settings") / "run.toml"
    file.write_text(SETTINGS + "[run.train]\nholdout = 0.0\n", encoding="utf-8")
    return ("--domain", f"sketch={walk.world / 'sketch'}", "--config", file)


def test_where_no_image_is_held_out_the_run_goes_on_without_the_figures_of_its_sae(
    none_held_out, tmp_path, capsys
) -> None:
    out = tmp_path / "run"
    for _ in range(2):  # the same command again finds the SAE as it is
        assert interp("run", *none_held_out, *LOCAL, "--out", out) == OK
        error = capsys.readouterr().err
        assert "is held out (holdout 0.0, 153 images): how well the SAE rebuilds new" in error
        assert "or a larger [run.train] holdout ([run.train]: a table of --config FILE)" in error
    assert len(read_labels(out / "labels.csv")) == 8
    assert not (out / "sae-trained" / "eval.json").exists()
