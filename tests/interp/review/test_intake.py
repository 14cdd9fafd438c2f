"""Verdicts from a file: what fits is taken once, the rest is counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.records.codec import to_json
from interp.report.labels import read_labels
from interp.review.intake import Intake, Refused
from interp.run.run import Run
from interp.run.verdicts import read_reviews
from sae.core.errors import UserError
from sae.core.files import append_jsonl
from tests.support.commands import interp
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.galleries import small_run
from tests.support.interp.reviewing import verdict_on


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return small_run(tmp_path)


def test_import_takes_what_fits_and_names_what_is_stale(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, figures = tmp_path / "verdicts.jsonl", tmp_path / "figures.json"
    foreign = verdict_on(run_dir, 1, run="f" * 16)
    exported = [verdict_on(run_dir, 0, "wrong"), verdict_on(run_dir, 1, better="rim"), foreign]
    append_jsonl(file, map(to_json, exported))
    append_jsonl(run_dir / "explanations.jsonl", [to_json(synthetic.explanation(0, "a new label"))])
    command = ("verdicts", "import", file, "--run", run_dir, "--json", figures)
    assert interp(*command) == 0
    out, err = capsys.readouterr()
    assert "1 verdicts imported, 0 were here before" in out
    assert "latent 0: the verdict is on 'label 0', now it is 'a new label'" in err
    assert "the verdict on latent 1 is of another SAE or store" in err
    said = json.loads(figures.read_text())
    assert [said[name] for name in ("n_imported", "n_stale", "n_foreign")] == [1, 1, 1]
    assert read_labels(run_dir)["interpretation"].tolist() == ["a new label", "rim"]
    before = (run_dir / "verdicts.jsonl").read_bytes()
    assert interp(*command) == 0
    assert "0 verdicts imported, 1 were here before" in capsys.readouterr().out
    assert (run_dir / "verdicts.jsonl").read_bytes() == before


def test_a_file_of_which_nothing_fits_ends_with_exit_code_4(run_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    append_jsonl(file, [to_json(verdict_on(run_dir, 0, label_hash="0" * 16))])
    assert interp("verdicts", "import", file, "--run", run_dir) == 4
    assert read_reviews(run_dir) == []


@pytest.mark.parametrize("line", ['{"id": 1}\n', "no json\n", "[]\n", '{"verdict": "right"}\n'])
def test_a_line_that_is_no_verdict_refuses_the_whole_file_by_its_number(
    run_dir: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdicts.jsonl"
    append_jsonl(file, [to_json(verdict_on(run_dir, 0))])
    with file.open("a") as more:
        more.write(line)
        more.write(json.dumps(to_json(verdict_on(run_dir, 1))) + "\n")
    code = interp("verdicts", "import", file, "--run", run_dir)
    err = capsys.readouterr().err
    if "no json" in line:  # torn: that line alone is lost, and named
        assert (code, "line 2" in err) == (0, True)
    else:
        assert (code, "line 2" in err) == (2, True)
        assert not (run_dir / "verdicts.jsonl").exists()


def test_a_missing_or_empty_file_is_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        Intake(Run(run_dir)).import_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="holds no verdict"):
        Intake(Run(run_dir)).import_file(tmp_path / "empty.jsonl")


def test_the_same_verdict_twice_is_one_and_none_is_taken_after_the_end(run_dir: Path) -> None:
    intake = Intake(Run(run_dir))
    sent = to_json(verdict_on(run_dir, 0, better="  a   b ", note=" n "))
    saved = [intake.take(sent), intake.take(sent)]
    assert {(one.better, one.note) for one in saved} == {("a b", "n")}
    assert len(read_reviews(run_dir)) == 1
    assert read_reviews(run_dir)[0].at.endswith("Z")
    intake.close()
    with pytest.raises(UserError, match="has ended"):
        intake.take(to_json(verdict_on(run_dir, 1)))


def test_a_verdict_on_a_latent_that_there_is_not_is_refused(run_dir: Path) -> None:
    intake = Intake(Run(run_dir))
    for latent in (-1, 2, 2**40):
        with pytest.raises(Refused, match="there is no latent"):
            intake.take({**to_json(verdict_on(run_dir, 0)), "latent": latent})
    with pytest.raises(UserError, match="label_hash"):
        intake.take({**to_json(verdict_on(run_dir, 0)), "label_hash": "x"})
    with pytest.raises(UserError):
        intake.take({**to_json(verdict_on(run_dir, 0)), "more": 1})
    assert read_reviews(run_dir) == []


def test_show_says_what_was_said(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Intake(Run(run_dir)).take(to_json(verdict_on(run_dir, 0, "partly", guess="rim")))
    assert interp("verdicts", "show", "--run", run_dir) == 0
    out = capsys.readouterr().out
    assert "1 of 2 labels reviewed: 0 right, 1 partly, 0 wrong, 0 unclear" in out
    assert "1 after a blind guess" in out
    assert "people and judge agree on 100% of 1 labels" in out
