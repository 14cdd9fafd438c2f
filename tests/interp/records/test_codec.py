"""What crosses a border comes back from JSON as it was; what does not fit is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import from_json, read_records, to_json
from interp.records.split import split_of
from interp.records.types import Evidence, Example, Explanation, LatentStats, Score, Verdict
from sae.core.errors import UserError

EXAMPLE = Example(7, "score", "top", 0, -1, 41, "ab", "sketch", "cat", "c/1.png", 2.5, b"\x00\xff")
SILENT = dataclasses.replace(EXAMPLE, kind="silent", act=0.0, heat=None)
STATS = LatentStats(
    latent=7,
    status="live",
    n_active=3,
    frequency=0.01,
    mean_act=1.5,
    max_act=2.5,
    hist=(1, *[0] * 30, 2),
    domain_rate={"sketch": 0.25, "photo": math.nan},
    sketch_share=math.nan,
    class_entropy=0.9,
    top_classes=(("cat", 2), ("wheel", 1)),
)
EXPLANATION = Explanation(
    latent=7,
    label="wheels",
    second_label=None,
    description="Round things.",
    verdict="single",
    level="object",
    confidence=80,
    failure=None,
    lint=("too_long",),
    model="m",
    provider=None,
    prompt="",
    codes={"A": "ab"},
    candidates=("wheels", "rings"),
    calls=(),
    usd=0.25,
)
VERDICT = Verdict("ab", 41, True, 2.5, 4, "quantile", "sketch", None)
SCORE = Score(
    latent=7,
    label="wheels",
    model="judge",
    explainer="m",
    prompt="f",
    verdicts=(VERDICT, dataclasses.replace(VERDICT, score=70.0)),
    auroc=0.75,
    auroc_low=0.5,
    auroc_high=0.9,
    auroc_easy=0.8,
    auroc_hard=math.nan,
    balanced_accuracy=0.7,
    spearman=math.nan,
    n_positive=2,
    n_negative=0,
    n_missing=1,
    failure=None,
    calls=("k",),
    usd=0.0,
)
RECORDS = [EXPLANATION, VERDICT, SCORE]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_from_strict_json_as_it_was(record: Any) -> None:
    text = json.dumps(to_json(record), allow_nan=False)
    back = from_json(type(record), json.loads(text))
    assert repr(back) == repr(record)  # NaN is not equal to itself, but reads the same


def test_nan_is_null_and_a_missing_answer_stays_none() -> None:
    values = to_json(SCORE)
    assert values["auroc_hard"] is None
    assert values["verdicts"][0]["score"] is None
    back = from_json(Score, values)
    assert math.isnan(back.auroc_hard)
    assert back.verdicts[0].score is None


def test_a_field_that_is_missing_or_unknown_is_named() -> None:
    values = to_json(VERDICT)
    with pytest.raises(UserError, match="Verdict has the unknown key 'colour'"):
        from_json(Verdict, {**values, "colour": 1})
    del values["truth"]
    with pytest.raises(UserError, match="Verdict lacks the key 'truth'"):
        from_json(Verdict, values)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"auroc": 0.75', '"auroc": "0.75"', r"'auroc' '0\.75': input should be a finite number"),
        ('"auroc": 0.75', '"auroc": true', "'auroc' True: input should be a finite number or null"),
        ('"auroc": 0.75', '"auroc": 1e400', "'auroc' inf: input should be a finite number or null"),
        ('"auroc": 0.75', '"auroc": NaN', "not valid JSON"),
        ('"latent": 7', '"latent": true', "'latent' True: input should be a valid integer"),
        ('"latent": 7', '"latent": "7"', "'latent' '7': input should be a valid integer"),
        ('"latent": 7', '"latent": 7.0', r"'latent' 7\.0: input should be a valid integer"),
        ('"latent": 7', '"latent": null', "'latent' None: input should be a valid integer"),
        ('"latent": 7', f'"latent": {10**400}', r"'latent' 1000.*000: input should be less than"),
        ('"latent": 7', f'"latent": {"9" * 5000}', "not valid JSON: number out of range"),
        ('"model": "judge"', '"model": 3', "'model' 3: input should be a valid string"),
        ('"row": 41', '"row": "x"', r"'verdicts\.0\.row' 'x': input should be a valid integer"),
        ('"row": 41', '"colour": 41', r"has the unknown key 'verdicts\.0\.colour'"),
        (
            '"kind": "quantile"',
            '"kind": "odd"',
            r"'verdicts\.0\.kind' 'odd': input should be 'top'",
        ),
        ('"calls": ["k"]', '"calls": "k"', "'calls' 'k': input should be a valid tuple"),
        ('"calls": ["k"]', '"calls": ' + "[" * 10**5, "not valid JSON: recursion limit"),
        ('"calls": ["k"], ', "", "lacks the key 'calls'"),
        ('"calls": ["k"]', '"cals": ["k"]', "unknown key 'cals'; did you mean 'calls'"),
        ('"label": "wheels"', '"label": "\udcff"', "not valid JSON: invalid unicode"),
    ],
)
def test_what_does_not_fit_costs_one_line_with_file_line_and_field(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    path = tmp_path / "scores.jsonl"
    whole = json.dumps(to_json(SCORE))
    assert before in whole
    text = f"{whole}\n\n{whole.replace(before, after)}\n{whole}\n"
    path.write_bytes(text.encode(errors="surrogateescape"))
    records = read_records(path, Score)
    assert repr(next(records)) == repr(SCORE)
    with pytest.raises(UserError, match=rf"^.*scores\.jsonl, line 3, .*{said}") as refused:
        next(records)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_row_that_contradicts_itself_is_named(tmp_path: Path) -> None:
    path = tmp_path / "explanations.jsonl"
    path.write_text(json.dumps({**to_json(EXPLANATION), "failure": "refused"}) + "\n[]\n")
    with pytest.raises(UserError, match="line 1, does not fit: latent 7: label 'wheels' with"):
        list(read_records(path, Explanation))


@pytest.mark.parametrize(("label", "failure"), [("wheels", "refused"), (None, None)])
def test_an_explanation_has_either_a_label_or_a_failure(
    label: str | None, failure: str | None
) -> None:
    with pytest.raises(ValueError, match="latent 7"):
        dataclasses.replace(EXPLANATION, label=label, failure=failure)
    assert dataclasses.replace(EXPLANATION, label=None, failure="refused").label is None


def test_evidence_gives_one_side_and_kind() -> None:
    evidence = Evidence(STATS, (EXAMPLE, SILENT))
    assert evidence.of("score", "top") == (EXAMPLE,)
    assert evidence.of("explain", "top") == ()


def test_the_split_is_known_even_and_reads_the_first_digits_only() -> None:
    assert split_of("7fffffff" + "f" * 56) == "explain"
    assert split_of("80000000" + "0" * 56) == "score"
    ids = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(10_000)]
    share = sum(split_of(i) == "explain" for i in ids) / len(ids)
    assert share == pytest.approx(0.5, abs=0.02)  # four standard errors
