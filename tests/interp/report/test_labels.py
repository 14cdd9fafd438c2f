"""`labels.csv`: every latent a row, nothing lost or changed on the way through a spreadsheet."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import to_json
from interp.records.types import Explanation, Score
from interp.report.labels import COLUMNS, columns_of, read_labels, write_labels
from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.files import append_jsonl
from tests.support.interp.latents import weakened
from tests.support.interp.synthetic_run import (
    explanation,
    make_evidence,
    make_images,
    scored,
    write_run,
)

N_LATENTS = 6


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Six latents, number 4 dead and number 5 dense, none explained yet."""
    images = make_images(tmp_path / "images", per_class=6)
    evidence = make_evidence(
        tmp_path / "images", images, N_LATENTS, special={4: "dead", 5: "dense"}
    )
    return write_run(tmp_path / "run", tmp_path / "images", images, evidence)


def test_the_share_of_tokens_stands_beside_that_of_images_and_is_empty_where_unknown(
    tmp_path: Path,
) -> None:
    images = make_images(tmp_path / "images", per_class=6)
    known, unknown = make_evidence(tmp_path / "images", images, 2)
    known = weakened(known)
    run_dir = write_run(tmp_path / "run", tmp_path / "images", images, [known, unknown])
    rows = rows_of(run_dir)
    assert [row["frequency"] for row in rows] == ["1", "0.013"]
    assert [row["token_frequency"] for row in rows] == ["0.0234", ""]
    assert read_labels(run_dir / "labels.csv")["token_frequency"].tolist()[0] == 0.0234


def explain(run_dir: Path, *explanations: Explanation) -> None:
    append_jsonl(run_dir / "explanations.jsonl", map(to_json, explanations))


def add_scores(run_dir: Path, *scores: Score) -> None:
    append_jsonl(run_dir / "scores.jsonl", map(to_json, scores))


def a_score(tmp_path: Path, latent: int = 0, label: str = "wheel", **changes: Any) -> Score:
    images = make_images(tmp_path / "more", per_class=6)
    evidence = make_evidence(tmp_path / "more", images, latent + 1)[latent]
    return scored(evidence, label, **changes)


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with write_labels(Run(run_dir)).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_every_latent_has_a_row_also_the_dead_and_the_unexplained(run_dir: Path) -> None:
    rows = rows_of(run_dir)
    assert [row["latent_id"] for row in rows] == [str(latent) for latent in range(N_LATENTS)]
    assert [row["status"] for row in rows] == ["live"] * 4 + ["dead", "dense"]
    assert tuple(rows[0]) == columns_of(["sketch", "photo"])
    assert COLUMNS[:2] == ("latent_id", "interpretation")
    assert {row["interpretation"] for row in rows} == {""}


def test_a_row_says_what_is_known_with_four_digits(run_dir: Path, tmp_path: Path) -> None:
    explain(run_dir, explanation(0, "wheel", usd=0.00123456))
    add_scores(run_dir, a_score(tmp_path, auroc=0.87654321, spearman=-0.41, usd=0.002))
    row = rows_of(run_dir)[0]
    assert (row["interpretation"], row["label"]) == ("wheel", "wheel")
    assert (row["auroc"], row["spearman"], row["dollars"]) == ("0.8765", "-0.41", "0.003235")
    assert (row["explainer"], row["scorer"], row["verdict"]) == ("local", "local", "single")
    assert row["n_positive"].isdigit()
    assert row["max_activation"] == "2"


def test_a_guess_has_its_mark_and_a_second_label_stands_beside_the_first(run_dir: Path) -> None:
    guess = explanation(0, "circle", verdict="unclear", confidence=31)
    both = explanation(1, "face", verdict="several", second_label="cloud", confidence=None)
    explain(run_dir, guess, both)
    first, second = rows_of(run_dir)[:2]
    assert (first["interpretation"], first["label"]) == ("circle (unclear)", "circle (unclear)")
    assert (first["verdict"], first["second_label"], first["confidence"]) == ("unclear", "", "31")
    assert second["interpretation"] == "face; also cloud"
    assert (second["label"], second["second_label"]) == ("face", "cloud")
    assert (second["verdict"], second["confidence"]) == ("several", "")


def test_what_is_not_known_is_empty_and_never_nought(run_dir: Path) -> None:
    explain(run_dir, explanation(0, "wheel"))
    scored_row, dead = rows_of(run_dir)[0], rows_of(run_dir)[4]
    assert (scored_row["auroc"], scored_row["n_missing"]) == ("", "")
    assert (dead["mean_activation"], dead["sketch_share"], dead["dollars"]) == ("", "", "")
    assert dead["frequency"] == "0"


def test_a_failure_is_named_and_gives_no_label(run_dir: Path, tmp_path: Path) -> None:
    explain(run_dir, explanation(0, None, failure="moderated"), explanation(1, "wheel"))
    add_scores(run_dir, a_score(tmp_path, 1, failure="timeout", auroc=math.nan))
    first, second = rows_of(run_dir)[:2]
    assert (first["interpretation"], first["status"]) == ("", "failed: moderated")
    assert (second["interpretation"], second["status"]) == ("wheel", "unscored: timeout")
    assert second["auroc"] == ""


def test_the_last_row_of_a_latent_counts_and_controls_do_not(run_dir: Path, tmp_path: Path) -> None:
    explain(run_dir, explanation(0, "old"), explanation(0, "wheel"))
    own = a_score(tmp_path, auroc=0.75)
    add_scores(
        run_dir,
        dataclasses.replace(own, auroc=0.25),
        own,
        dataclasses.replace(own, auroc=0.5, control="shuffled"),
    )
    row = rows_of(run_dir)[0]
    assert (row["label"], row["auroc"]) == ("wheel", "0.75")


def test_the_score_of_an_earlier_label_is_not_given_to_the_new_one(
    run_dir: Path, tmp_path: Path
) -> None:
    explain(run_dir, explanation(0, "wheel"), explanation(0, "spoked wheel"))
    add_scores(run_dir, a_score(tmp_path, label="wheel"))
    row = rows_of(run_dir)[0]
    assert (row["label"], row["auroc"], row["scorer"]) == ("spoked wheel", "", "")


NASTY = [
    "NA",
    "null",
    "None",
    "nan",
    "=1+1",
    "+red",
    "-dashed",
    "@home",
    "\tx",
    "\rx",
    "'quoted'",
    "'=already",
    "''=twice",
    'comma, "quotes" and\nlines',
    "crème brûlée 犬 🦊",
    "1.5",
    "TRUE",
    " leading blank",
]


@pytest.mark.parametrize("label", NASTY)
def test_any_label_comes_back_as_it_was(run_dir: Path, label: str) -> None:
    explain(run_dir, explanation(0, label))
    table = read_labels(write_labels(Run(run_dir)))
    assert table.loc[0, "interpretation"] == label
    assert table.loc[0, "label"] == label
    assert table.loc[1, "interpretation"] == ""


@pytest.mark.parametrize("label", [label for label in NASTY if label[0] in "=+-@\t\r"])
def test_no_text_cell_begins_like_a_formula(run_dir: Path, label: str) -> None:
    explain(run_dir, explanation(0, label, description=label))
    row = rows_of(run_dir)[0]
    assert row["label"] == "'" + label
    assert row["description"] == "'" + label


def test_a_negative_number_stays_a_number(run_dir: Path, tmp_path: Path) -> None:
    explain(run_dir, explanation(0, "wheel"))
    add_scores(run_dir, a_score(tmp_path, spearman=-0.4))
    assert b",-0.4," in write_labels(Run(run_dir)).read_bytes()
    assert read_labels(run_dir).loc[0, "spearman"] == -0.4


def test_numbers_are_read_as_numbers_and_missing_ones_as_missing(
    run_dir: Path, tmp_path: Path
) -> None:
    explain(run_dir, explanation(0, "wheel"))
    add_scores(run_dir, a_score(tmp_path))
    write_labels(Run(run_dir))
    table = read_labels(run_dir)
    assert table["auroc"].dtype == "float64"
    assert table["n_positive"].dtype == "Int64"
    assert table["latent_id"].dtype == "int64"
    assert table["auroc"].notna().tolist() == [True] + [False] * 5
    assert table["n_positive"].notna().tolist() == [True] + [False] * 5


def test_the_same_files_give_the_same_bytes_with_plain_line_ends(run_dir: Path) -> None:
    explain(run_dir, explanation(0, "wheel"))
    first = write_labels(Run(run_dir)).read_bytes()
    assert write_labels(Run(run_dir)).read_bytes() == first
    assert b"\r" not in first
    assert first.startswith(b"\xef\xbb\xbflatent_id,interpretation,label,")
    assert [path.name for path in run_dir.glob("*.part")] == []


def test_accents_are_marked_for_excel_and_read_as_before_also_from_older_files(
    run_dir: Path,
) -> None:
    import pandas as pd

    explain(run_dir, explanation(0, "caf\u00e9 \U0001f34e"))
    path = write_labels(Run(run_dir))
    assert path.read_bytes().startswith(codecs.BOM_UTF8)
    plain = pd.read_csv(path)
    assert plain.columns[0] == "latent_id"
    assert plain.loc[0, "label"] == "caf\u00e9 \U0001f34e"
    ours = read_labels(path)
    older = ours.drop(columns=["share_sketch", "share_photo", "circular"])
    older.to_csv(path, index=False)
    assert not path.read_bytes().startswith(codecs.BOM_UTF8)
    pd.testing.assert_frame_equal(read_labels(path), older)


@pytest.mark.parametrize("names", ["sketch photo", "photo", "sketch photo scan", "a b c"])
def test_each_domain_has_a_column_and_sketch_its_own_where_there_is_one(
    tmp_path: Path, names: str
) -> None:
    domains = names.split()
    images = make_images(tmp_path / "images", domains, per_class=6)
    evidence = make_evidence(tmp_path / "images", images, 2, special={1: "dead"})
    run = write_run(tmp_path / "run", tmp_path / "images", images, evidence)
    live, dead = rows_of(run)
    shares = [float(live[f"share_{domain}"]) for domain in domains]
    rates = list(evidence[0].stats.domain_rate.values())
    assert shares == pytest.approx([rate / sum(rates) for rate in rates], abs=1e-3)
    assert [dead[f"share_{domain}"] for domain in domains] == [""] * len(domains)
    assert live.get("sketch_share") == (live["share_sketch"] if "sketch" in domains else None)
    assert read_labels(run)[f"share_{domains[-1]}"].dtype == "float64"


@pytest.mark.parametrize(
    ("scorer", "circular"),
    [
        ("local:ViT-B-32/openai", "yes"),
        ("local:ViT-B-32-quickgelu/openai", "yes"),
        ("local:tiny", "no"),
        ("openai/gpt-4.1-mini", "no"),
    ],
)
def test_a_judge_that_looks_with_the_saes_own_clip_is_marked(
    run_dir: Path, tmp_path: Path, scorer: str, circular: str
) -> None:
    explain(run_dir, explanation(0, "wheel"))
    add_scores(run_dir, a_score(tmp_path, model=scorer))
    rows = rows_of(run_dir)
    assert (rows[0]["circular"], rows[1]["circular"]) == (circular, "")


def test_a_missing_file_is_named_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interp cards"):
        read_labels(tmp_path)


def test_labels_are_written_without_torch_and_without_pandas(run_dir: Path) -> None:
    code = (
        "import sys\n"
        "from interp.report.labels import write_labels\n"
        "from interp.run.run import Run\n"
        "from pathlib import Path\n"
        f"write_labels(Run(Path({str(run_dir)!r})))\n"
        "print([name for name in ('torch', 'pandas', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (run_dir / "labels.csv").exists()
