"""transfer.csv: what is written is read, and damage is named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from interp.records.transfer import Cell, Transfer
from interp.run.transfer_file import FILE, read_transfer, write_transfer
from sae.core.errors import UserError

CELL = Cell(0.9, 0.8, 0.95)
FULL = Transfer(3, "sketch", "photo", "shape", "", "", '=1+1, "x"', "wheel", 0.5, (CELL,) * 4)
BOUND = Transfer(7, "sketch", "photo", "domain-bound", "rate", "photo", "", "", 0.02, (Cell(),) * 4)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_transfer(tmp_path, [FULL, BOUND])
    found = read_transfer(tmp_path)
    assert found[3] == FULL
    assert found[7].only == "photo"
    assert math.isnan(found[7].cells[0].auroc)
    assert "'=1+1" in (tmp_path / FILE).read_text()
    assert read_transfer(tmp_path / "elsewhere") == {}


def test_a_damaged_file_is_named_with_the_command_that_writes_it(tmp_path: Path) -> None:
    path = write_transfer(tmp_path, [FULL])
    text = path.read_text(encoding="utf-8-sig")
    for damaged in (text.replace("shape", "form"), text.replace("0.9", "x"), text[20:], ""):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"transfer\.csv"):
            read_transfer(tmp_path)


def test_the_card_says_it_in_words() -> None:
    assert FULL.words() == "shape: holds in sketches and photos"
    assert BOUND.words() == "domain-bound: active on photos, hardly on sketches"
