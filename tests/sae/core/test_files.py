"""Complete or absent; refused by name; a torn line costs that line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sae.core.errors import Notice, UserError
from sae.core.files import (
    append_jsonl,
    read_config,
    read_jsonl,
    repair_jsonl,
    replacing,
    write_json,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    format: int = 1
    name: str
    size: int = 3


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path) as part:
        part.write_text((tmp_path / "missing").read_text())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_config_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_json(path, Settings(name="x", size=5))
    assert read_config(path, Settings) == Settings(name="x", size=5)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"format": 2, "name": "x"}', "format 2"),
        ('{"name": "x"}', "format None"),
        ('{"format": 1, "name": "x", "siez": 1}', "did you mean 'size'?"),
        ('{"format": 1}', "'name'"),
        ("[]", "object"),
        ("{", "JSON"),
        ('{"format": 1, "name": 3}', "'name' 3: input should be a valid string"),
        ('{"format": 1, "name": "x", "size": "3"}', "'size' '3': input should be a valid integer"),
        ('{"format": 1, "name": "x", "size": true}', "'size' True: input should be a valid int"),
        ('{"format": true, "name": "x"}', "'format' True: input should be a valid integer"),
        ('{"format": 1, "name": ' + "[" * 10**5, "recursion limit"),
        (f'{{"format": 1, "name": "x", "size": {10**400}}}', "less than or equal to"),
        ('{"format": 1, "name": "\udcff"}', "not valid JSON"),
    ],
)
def test_config_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"config\.json") as refused:
        read_config(path, Settings)
    assert word in str(refused.value)


def test_missing_config_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `it` again"):
        read_config(tmp_path / "config.json", Settings, "run `it` again")


@pytest.mark.parametrize(
    "torn", ["{", '{"a": {"a": 3}', '{"a": 1, "b{"a": 1}', "\0\0\0", "x" * 5000000]
)
def test_a_torn_line_in_the_middle_costs_that_line_and_is_told(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n{torn}\n{{"a": 2}}\n')
    with pytest.warns(Notice, match=r"rows\.jsonl: 1 damaged lines are passed over \(line 2\)"):
        assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "damaged", ["[1]", "3", '{"a": NaN}', "[" * 10**5, f'{{"a": {"9" * 6000}}}']
)
def test_a_damaged_line_in_the_middle_is_named_by_its_number(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n{damaged}\n{{"a": 2}}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2, (is not valid|does not hold)"):
        read_jsonl(path)


@pytest.mark.parametrize("torn", ['{"a": 3', "{", '{"a": 3}'])
def test_torn_last_line_costs_that_line(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write(torn)
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    repair_jsonl(path)
    append_jsonl(path, [{"a": 4}])
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}, {"a": 4}]
