"""The whole job by its command lines, as a user types it."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.evidence.reader import EvidenceReader
from interp.llm.server.preflight import ASKED
from interp.records.codec import from_json
from interp.records.split import split_of
from interp.records.types import Explanation, Score
from interp.report.labels import read_labels
from interp.run.run import Run
from interp.run.verdicts import append_reviews
from sae.core.files import read_jsonl
from tests.support.commands import Walk, interp, sae
from tests.support.interp.reviewing import verdict_on
from tests.support.paths import ROOT
from tests.support.sae.small_clip import small_clip
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Fault
from tests.support.unchanged import unchanged

CANARY = "sk-or-canary-0123456789abcdef"


@pytest.fixture
def run(walk: Walk) -> Path:
    """A copy of the collected run beside the store (which it names by a relative path)."""
    copy = walk.run.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(walk.run, copy)
    return copy


class Paid(NamedTuple):
    """A run that a server has explained and judged. Read-only: copy what you change."""

    run: Path
    said: str
    """What was printed, in both streams."""
    keys: set[str]
    """What stood in the header `authorization` of its requests."""


@pytest.fixture(scope="module")
def paid(walk: Walk) -> Iterator[Paid]:
    run, said = walk.run.with_name("paid"), io.StringIO()
    shutil.copytree(walk.run, run)
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("OPENROUTER_API_KEY", CANARY)
        server = stack.enter_context(Loopback())
        stack.enter_context(redirect_stdout(said))
        stack.enter_context(redirect_stderr(said))
        for command in ("explain", "score"):
            url = ("--base-url", server.base_url)
            assert interp(command, "--model", "x/y", *url, "--run", run) == 0
        assert interp("cards", "--run", run) == 0
        keys = {request.headers.get("authorization", "") for request in server.requests}
    with unchanged(run):
        yield Paid(run, said.getvalue(), keys)


def test_local_walk_ends_with_a_row_for_every_latent_and_a_second_call_changes_no_file(
    run: Path,
) -> None:
    for command in ("explain", "score"):
        assert interp(command, "--model", "local", "--run", run) == 0
    names = ("explanations.jsonl", "scores.jsonl", "labels.csv", "run.json")
    before = {name: (run / name).read_bytes() for name in names}
    for command in ("explain", "score"):
        assert interp(command, "--model", "local", "--run", run) == 0
    assert {name: (run / name).read_bytes() for name in names} == before
    assert interp("score", "--model", "local", "--control", "shuffled", "--run", run) == 0
    assert interp("cards", "--run", run) == 0
    labels = read_labels(run / "labels.csv")
    assert labels["latent_id"].tolist() == list(range(16))
    assert list(labels.columns[:2]) == ["latent_id", "interpretation"]
    live = labels[labels["status"] == "live"]
    assert len(live) > 0
    assert (live["interpretation"] != "").all()
    assert Run(run).gallery.exists()


def test_score_only_edited_tests_the_labels_of_people_beside_the_runs_own(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = ("score", "--only", "edited", "--model", "local", "--run", run)
    assert interp("explain", "--model", "local", "--run", run) == 0
    assert interp(*edited) == 2
    assert "no label by a person to score" in capsys.readouterr().err
    assert interp("score", "--model", "local", "--run", run) == 0
    before = read_labels(run).set_index("latent_id")
    latent = int(before["auroc"].idxmax())
    append_reviews(run, [verdict_on(run, latent, "wrong", better="umbrella")])
    assert interp(*edited) == 0
    assert "written by a person, who could see the images" in capsys.readouterr().out
    after = read_labels(run).set_index("latent_id")
    assert after.loc[latent, "interpretation"] == "umbrella"
    assert 0 <= after.loc[latent, "human_auroc"] <= 1
    assert after["human_auroc"].count() == 1
    assert after["auroc"].equals(before["auroc"])
    assert (after["label"] == before["label"]).all()
    written = (run / "edited" / "scores.jsonl").read_bytes()
    assert interp(*edited) == 0  # nothing is asked twice
    assert (run / "edited" / "scores.jsonl").read_bytes() == written
    for more in (("--control", "shuffled"), ("--kind", "intruder")):
        assert interp(*edited, *more) == 2
    assert interp("score", "--only", "edit", "--model", "local", "--run", run) == 2
    assert "did you mean 'edited'?" in capsys.readouterr().err


def test_no_held_out_image_is_shown_and_no_shown_image_is_tested(paid: Paid) -> None:
    run = paid.run
    explained = [from_json(Explanation, row) for row in read_jsonl(run / "explanations.jsonl")]
    scored = [from_json(Score, row) for row in read_jsonl(run / "scores.jsonl")]
    shown = {image for one in explained for image in one.codes.values()}
    tested = {verdict.image_id for one in scored for verdict in one.verdicts}
    assert shown
    assert tested
    groups = EvidenceReader(run).groups
    assert {split_of(groups.get(image, image)) for image in shown} == {"explain"}
    assert {split_of(groups.get(image, image)) for image in tested} == {"score"}


def test_faulty_server_loses_no_reply_and_makes_no_label_of_a_fault(run: Path) -> None:
    kinds = ("500", "error_200", "html", "broken", "hang")
    with Loopback() as server:
        server.queue(*[None] * len(ASKED))  # the first look at the model
        server.queue("429", retry_after=0.2)
        server.queue(*kinds)
        patience = ("--timeout", 5, "--concurrency", 4)
        url = ("--base-url", server.base_url)
        assert interp("explain", "--model", "x/y", *url, *patience, "--run", run) == 0
        n_asked = len(server.chats)
    explained = [from_json(Explanation, row) for row in read_jsonl(run / "explanations.jsonl")]
    labelled = [one for one in explained if one.label]
    assert n_asked == len(ASKED) + len(labelled) + 1 + len(kinds)
    assert sorted(one.latent for one in explained) == EvidenceReader(run).live()
    assert {one.failure for one in explained} <= {None, "too_few_images"}
    assert len(labelled) >= 8


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_says_its_own_words_which_go_on_without_asking_twice(
    run: Path, number: signal.Signals, code: int
) -> None:
    program = (sys.executable, "-m", "tests.support.interp.patient")
    with Loopback(latency=0.2) as server:
        url = server.base_url.replace("//", "//ann:s3cret@")
        words = ["explain", "--model", "x/y", "--base-url", url, "--concurrency", "2"]
        child = subprocess.Popen(
            [*program, *words, "--run", run], stderr=subprocess.PIPE, text=True, env=_environment()
        )
        while server.answered.total() < 4 or server.answered.total() == len(server.chats):
            assert child.poll() is None, child.stderr and child.stderr.read()
            time.sleep(0.01)
        n_sent = len(server.chats)
        child.send_signal(number)
        _, errors = child.communicate(timeout=300)
        assert child.returncode == code
        assert len(server.chats) <= n_sent + 2  # those that were on their way as the signal came
        assert "s3cret" not in errors
        again = errors.splitlines()[-1].removeprefix("interp: interrupted; to go on: interp ")
        again = again.replace("***@", "ann:s3cret@")
        assert shlex.split(again) == [*words, "--run", str(run)]
        n_before = server.answered.total()
        assert n_before == len(server.chats)  # what was in flight had its second, and is kept:
        command = [*program, *shlex.split(again)]
        assert subprocess.run(command, env=_environment(), check=False).returncode == 0
        assert server.answered.total() > n_before
        assert max(server.answered.values()) == 1
    assert len(read_jsonl(run / "explanations.jsonl")) == len(EvidenceReader(run).live())


def test_key_stands_in_no_file_and_no_output(
    paid: Paid, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert f"Bearer {CANARY}" in paid.keys, "the key never reached the server"
    monkeypatch.setenv("OPENROUTER_API_KEY", CANARY)
    with Loopback() as server:
        url = ("--base-url", server.base_url)
        server.always = Fault("echo")
        assert interp("--debug", "explain", "--model", "x/z", *url, "--run", run) != 0
        interp("doctor", "--model", "x/z", *url)
        sent = [r for r in server.requests if CANARY in r.headers.get("authorization", "")]
    assert sent, "the key never reached the server: the test looks at nothing"
    output = capfd.readouterr()
    assert CANARY not in output.out + output.err + paid.said
    files = [path for folder in (run, paid.run) for path in folder.rglob("*") if path.is_file()]
    holding = [path for path in files if CANARY.encode() in path.read_bytes()]
    assert holding == []


def test_ordinary_photos_with_a_truncated_one_and_a_bomb_run_to_the_end(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _write_photos(photos, 28)
    store, model, run = tmp_path / "store", tmp_path / "sae", tmp_path / "run"
    clip = ("--clip", small_clip(tmp_path / "vit"), "--workers", 0)
    assert sae("embed", "--domain", f"photo={photos}", "--out", store, *clip) == 4
    assert not (store / "store.json").exists()
    skip = "--allow-skipped"
    assert sae("embed", "--domain", f"photo={photos}", "--out", store, *clip, skip) == 0
    skipped = pd.read_csv(store / "skipped.csv")
    assert sorted(skipped["path"]) == ["bomb.png", "cut.jpg"]
    assert sae("train", store, "--out", model, "--n-latents", 16, "--k", 4) == 0
    wide = ("--dense-above", 1)
    assert interp("collect", model, store, "--run", run, *wide) == 0
    with Loopback() as server:
        url = ("--base-url", server.base_url)
        for command in ("explain", "score"):
            assert interp(command, "--model", "x/y", *url, "--run", run) == 0
    assert interp("cards", "--run", run) == 0
    assert len(read_labels(run / "labels.csv")) == 16


def test_figures_that_were_printed_are_written_as_one_flat_object(
    walk: Walk, tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    model = shutil.copytree(walk.sae, tmp_path / "sae")  # which gets its eval.json
    assert sae("eval", model, walk.store, "--no-zeroshot", "--json", out) == 0
    figures = json.loads(out.read_text())
    assert {"fvu", "sketch/fvu", "photo/fvu"} <= set(figures)
    assert all(isinstance(value, int | float | str | None) for value in figures.values())


def _write_photos(folder: Path, n: int) -> None:
    """Smooth random colour fields in camera-like sizes, JPEG and PNG; and two bad files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(n):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        photo = small.resize((420 + 10 * number, 300), Image.Resampling.BICUBIC)
        photo.save(folder / f"{number:02d}.{'jpg' if number % 3 else 'png'}")
    whole = (folder / "01.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def test_where_no_latent_is_on_enough_images_cards_are_next(walk, tmp_path, capsys) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((walk.world / "photo").rglob("*.png"))[:6]:
        shutil.copy(path, photos)
    store, run = tmp_path / "store", tmp_path / "run"
    assert sae("embed", "--domain", f"photo={photos}", "--out", store, "--workers", 0) == 0
    assert interp("collect", walk.sae, store, "--run", run, "--dense-above", 1) == 0
    for _ in range(2):  # asked again it is the same
        capsys.readouterr()
        assert interp("explain", "--model", "local", "--run", run) == 0
        said = capsys.readouterr().out
        assert said.endswith(f"next:     interp cards --run {run}\n")
