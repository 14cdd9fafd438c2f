"""Verdicts by columns are those of the records, and what records refuse is refused alike."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import from_json, to_json
from interp.records.types import Score
from interp.run.results import Results
from interp.run.verdict_table import VerdictTable
from sae.core.errors import UserError
from tests.support.interp import synthetic_run as synthetic

WHOLE = {
    "image_id": "a" * 64,
    "row": 3,
    "truth": True,
    "act": 0.25,
    "stratum": 1,
    "kind": "quantile",
    "domain": "photo",
    "score": 70.0,
    "call": 2,
    "weight": 1.5,
}
OLD = {name: value for name, value in WHOLE.items() if name not in ("call", "weight")}
TAKEN: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "whole": [WHOLE, WHOLE | {"image_id": "b" * 64, "truth": False, "kind": "hard", "row": 9}],
    "of an older file": [OLD, OLD],
    "not answered": [WHOLE | {"score": None, "act": None, "weight": None}],
    "whole numbers": [WHOLE | {"score": 100, "act": 2, "weight": 1}],
    "a huge number": [WHOLE | {"act": 1e300}],
    "of two ages": [WHOLE, OLD],
    "without a weight": [OLD | {"call": 1}],
}
REFUSED: dict[str, Any] = {
    "a text for a number": [WHOLE | {"act": "0.5"}],
    "a truth that is a number": [WHOLE | {"truth": 1}],
    "a row that is no whole number": [WHOLE | {"row": 1.0}],
    "a row beyond 64 bits": [WHOLE | {"row": 2**63}],
    "a row that is a truth": [WHOLE | {"row": True}],
    "a stratum beyond 64 bits": [WHOLE | {"stratum": -(2**63) - 1}],
    "a score above 100": [WHOLE, WHOLE | {"score": 100.5}],
    "a score below 0": [WHOLE | {"score": -1}],
    "no such kind": [WHOLE | {"kind": "bottom"}],
    "an unknown field": [WHOLE | {"more": 1}],
    "another name": [{"image": 1, **{k: v for k, v in WHOLE.items() if k != "weight"}}],
    "a lacking field": [{name: value for name, value in WHOLE.items() if name != "domain"}],
    "a place that is none": [WHOLE | {"call": None}],
}


def line_of(tmp_path: Path, verdicts: Any) -> dict[str, Any]:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    [one] = synthetic.make_evidence(tmp_path / "images", images, 1)
    return {**to_json(synthetic.scored(one, "cat", 0.7)), "verdicts": verdicts}


def written(tmp_path: Path, values: dict[str, Any]) -> Results:
    (tmp_path / "scores.jsonl").write_text(json.dumps(values) + "\n")
    return Results(tmp_path)


@pytest.mark.parametrize("name", TAKEN)
def test_columns_hold_what_the_records_hold(tmp_path: Path, name: str) -> None:
    values = line_of(tmp_path, TAKEN[name])
    results = written(tmp_path, values)
    table = results.read_verdicts()
    [line] = results.score_lines
    places = table.places(line.span[0])
    ids, words = table.image_ids, table.words
    held = [
        (ids[row["image"]], row["row"], row["truth"], words[row["kind"]], words[row["domain"]])
        for row in table.rows()[places]
    ]
    verdicts = from_json(Score, values).verdicts
    assert held == [(v.image_id, v.row, v.truth, v.kind, v.domain) for v in verdicts]
    for row, verdict in zip(table.rows()[places], verdicts, strict=True):
        assert _same(row["act"], verdict.act)
        assert _same(row["grade"], verdict.score)
    assert line == Results(tmp_path).score_lines[0]


def test_what_is_plain_is_taken_without_records() -> None:
    table = VerdictTable()
    assert table.add_json(0, TAKEN["whole"])
    assert table.add_json(9, TAKEN["of an older file"])
    assert not table.add_json(20, TAKEN["of two ages"])
    assert len(table.rows()) == 4


@pytest.mark.parametrize("name", REFUSED)
def test_what_records_refuse_is_refused_with_the_same_words(tmp_path: Path, name: str) -> None:
    values = line_of(tmp_path, REFUSED[name])
    with pytest.raises(UserError) as expected:
        from_json(Score, values, f"{tmp_path / 'scores.jsonl'}, line 1,")
    with pytest.raises(UserError) as said:
        written(tmp_path, values).read_verdicts()
    assert str(said.value) == str(expected.value)


def _same(number: float, expected: float | None) -> bool:
    if expected is None or math.isnan(expected):
        return bool(math.isnan(number))
    return bool(number == expected)
