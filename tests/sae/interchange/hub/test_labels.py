"""`sae push --labels`: SAE, labels, scores and gallery go up as one repository, and come back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

import interp
from sae.core.errors import USAGE
from sae.interchange.hub.labels import as_words
from tests.support.commands import sae
from tests.support.sae.hub_parcels import REPO, a_run, saved
from tests.support.servers.fake_hub import FakeHub

CANARY = "/home/canary/secret/vit"
HOSTILE = "<img src=x onerror=alert(1)> [win](https://evil.example/x) | `rm` www.evil.example"
HEADER = (
    "latent_id,interpretation,verdict,auroc,auroc_low,n_positive,supported,explainer,scorer,note"
)
ROWS = (
    '0,"{}",single,0.75,0.6,20,supported,local,my/judge,',
    "1,'=1+1,single,0.9,0.45,20,unsupported,local,my/judge,",
    "2,,,,,,,,,{}",
    "3,NA (unclear),unclear,0.99,0.9,20,supported,local,my/judge,",
)
SCORES = (
    {"latent": 0, "label": "early", "model": "my/judge", "auroc": 0.5},
    {"latent": 0, "label": "late", "model": "my/judge", "auroc": 0.75, "verdicts": [{"row": 1}]},
    {"latent": 0, "label": "late", "model": "my/judge", "auroc": 0.4, "control": "shuffled"},
)


@pytest.fixture
def run(tmp_path: Path, model: Path) -> Path:
    """A run with a label that a web page would run, and scores of which the last one counts."""
    folder = a_run(tmp_path / "run", model)
    lines = (HEADER, ROWS[0].format(HOSTILE), ROWS[1], ROWS[2].format(CANARY), ROWS[3])
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "run.json").write_text(json.dumps({"format": 1, "n_images": 1234}))
    scores = ({**line, "server": "http://10.1.2.3:80", "note": CANARY} for line in SCORES)
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scores))
    return folder


def _table(data: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(data))


def test_a_repository_has_the_labels_as_they_were_written_and_the_scores_that_count(
    hub: FakeHub, run: Path
) -> None:
    assert sae("push", "--labels", run, REPO) == 0
    files = hub.files(REPO)
    assert {"config.json", "sae.safetensors", "labels.csv", "gallery/index.html"} <= set(files)
    labels = _table(files["labels.parquet"])
    assert labels["interpretation"].tolist() == [HOSTILE, "=1+1", "", "NA (unclear)"]
    assert labels["auroc"].tolist()[:2] == [0.75, 0.9]
    assert labels["n_positive"].tolist()[:2] == [20, 20]
    scores = _table(files["scores.parquet"])
    assert scores["label"].tolist() == ["late", "late"]
    assert scores["auroc"].tolist() == [0.75, 0.4]
    assert "server" not in scores
    for data in files.values():
        assert b"secret" not in data
        assert b"10.1.2.3" not in data


def test_the_card_has_the_runs_figures_and_a_label_is_words_in_it(hub: FakeHub, run: Path) -> None:
    assert sae("push", "--labels", run, REPO) == 0
    card = hub.files(REPO)["README.md"].decode()
    assert "Named by local on 1,234 images. 2 labels were tested by my/judge" in card
    assert "mean AUROC 0.825" in card
    assert "interval of 1 of them is above chance. 2 are supported" in card
    assert f'pd.read_parquet("hf://{REPO}/labels.parquet")' in card
    assert "| 1 | =1+1 | 0.900 |" in card
    assert "NA (unclear)" not in card
    for told in ("<img", "](", "https://evil", "www.evil", "`rm`"):
        assert told not in card
    assert "&lt;img src=x onerror=alert(1)&gt;" in card


def test_what_was_pushed_is_pulled_and_its_labels_are_read(
    hub: FakeHub, run: Path, tmp_path: Path
) -> None:
    assert sae("push", run / "sae", REPO, "--labels", run) == 0
    forged = pd.DataFrame({"latent_id": [0], "interpretation": ["forged"]})
    files = dict(hub.files(REPO)) | {"labels.parquet": forged.to_parquet()}
    hub.add(REPO, files)
    assert sae("pull", REPO, "--out", tmp_path / "pulled") == 0
    labels = interp.read_labels(tmp_path / "pulled")
    assert labels["interpretation"].tolist()[:2] == [HOSTILE, "=1+1"]
    table = pd.read_parquet(tmp_path / "pulled" / "labels.parquet")
    pd.testing.assert_frame_equal(table, labels)
    assert not (tmp_path / "pulled" / "scores.parquet").exists()


def test_a_key_in_a_score_ends_it_before_anything_is_sent(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (run / "scores.jsonl").open("a") as file:
        file.write(json.dumps({"latent": 1, "note": "hf_" + "a1" * 12}) + "\n")
    assert sae("push", "--labels", run, REPO) == USAGE
    assert "scores.jsonl, line 1, holds an access key" in capsys.readouterr().err
    assert not hub.asked


def test_labels_and_gallery_are_one_word_and_a_run_needs_its_sae(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("push", run / "sae", REPO, "--labels", run, "--gallery", run) == USAGE
    assert "leave --gallery out" in capsys.readouterr().err
    assert sae("push", "--labels", tmp_path / "none", REPO) == USAGE
    assert "none/sae does not exist" in capsys.readouterr().err


def test_a_new_sae_takes_the_tables_of_the_old_one_away(
    hub: FakeHub, run: Path, tmp_path: Path
) -> None:
    assert sae("push", "--labels", run, REPO) == 0
    assert sae("push", saved(tmp_path / "other", seed=1), REPO) == 0
    assert not {"labels.parquet", "scores.parquet", "labels.csv"} & set(hub.files(REPO))


def test_a_run_without_scores_has_labels_alone(hub: FakeHub, run: Path) -> None:
    (run / "scores.jsonl").unlink()
    (run / "labels.csv").write_text("latent_id,interpretation\n0,a wheel\n")
    assert sae("push", "--labels", run, REPO) == 0
    files = hub.files(REPO)
    assert "scores.parquet" not in files
    card = files["README.md"].decode()
    assert "were tested" not in card
    assert "scores.parquet" not in card


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a top-hat (black)", "a top-hat (black)"),
        ("one\ntwo\u2028three\x00", "one two three"),
        ("*b* _i_ ~s~ #h", "&#42;b&#42; &#95;i&#95; &#126;s&#126; &#35;h"),
        ("a" * 90, "a" * 77 + "..."),
    ],
)
def test_a_label_is_words_on_a_card(text: str, words: str) -> None:
    assert as_words(text).replace("&#46;", ".") == words
