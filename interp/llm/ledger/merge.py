"""The ledger of a part of a run -> rows that the whole run's ledger takes in, none of them twice.

An answer is known by the key of its question, a risk by its number, which is drawn by chance. Of a
question that two parts have paid for, as the two small ones before a paid run, the first answer
stays, and what the other has cost is kept with the requests that brought no answer of use.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from interp.llm.ledger.queries import has_table
from interp.llm.ledger.report import open_read_only
from sae.core.files import sha256_hex

_AT_ONCE = 500
"""Rows of one transaction: so many are taken in again where a merge was killed."""
_BITS = 62
"""Of a risk's number: SQLite's are of 63."""


class Taken(NamedTuple):
    """What a ledger has taken in."""

    n_calls: int = 0
    n_twice: int = 0
    """Answers that stayed behind: another part has paid for the same question."""
    n_risked: int = 0
    """Requests that cost, or may have cost, something and brought no answer to keep."""

    def plus(self, other: Taken) -> Taken:
        """The sums."""
        return Taken(*map(sum, zip(self, other, strict=True)))


def read_batches(path: Path, table: str) -> Iterator[list[tuple[Any, ...]]]:
    """All rows of a table, some at a time. Raises `UserError` where the file is damaged."""
    with open_read_only(path) as source:
        if not has_table(source, table):
            return
        rows = source.execute(f"SELECT {_COLUMNS[table]} FROM {table} ORDER BY 1")
        while batch := rows.fetchmany(_AT_ONCE):
            if table == "calls":
                for row in batch:
                    _require_call(row)
            yield batch


def take_calls(calls: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> Taken:
    """Answers that are new; of those that differ from the one that is here, their cost."""
    n_calls = n_twice = 0
    for key, created, request, reply in rows:
        query = "SELECT created, reply FROM calls WHERE key = ?"
        known = calls.execute(query, (key,)).fetchone()
        if known is None:
            calls.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", (key, created, request, reply))
            n_calls += 1
        elif known != (created, reply):
            said = json.loads(reply)
            usd = said.get("usd") or 0.0
            paid = (_number_of([key, created, reply]), key, said.get("about", ""), usd, 1)
            n_twice += calls.execute(_INSERT_RISK, paid).rowcount
    return Taken(n_calls, n_twice)


def take_risks(calls: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> Taken:
    """Requests without an answer that are not here yet; ledgers of before count them from 1."""
    n = 0
    for row in rows:
        query = "SELECT key, about, usd, known FROM risked WHERE id = ?"
        known = calls.execute(query, row[:1]).fetchone()
        if known is None or known != row[1:]:
            number = row[0] if known is None and row[0] > 1 << 32 else _number_of([*row])
            n += calls.execute(_INSERT_RISK, (number, *row[1:])).rowcount
    return Taken(n_risked=n)


def take_notes(calls: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> Taken:
    """What was learned of models and their servers; what is known here stays."""
    calls.executemany("INSERT OR IGNORE INTO notes VALUES (?, ?)", rows)
    return Taken()


TABLES = {"calls": take_calls, "risked": take_risks, "notes": take_notes}
_COLUMNS = {
    "calls": "key, created, request, reply",
    "risked": "id, key, about, usd, known",
    "notes": "name, value",
}
_INSERT_RISK = "INSERT OR IGNORE INTO risked (id, key, about, usd, known) VALUES (?, ?, ?, ?, ?)"


def _require_call(row: tuple[Any, ...]) -> None:
    """Raises `TypeError` or `ValueError` for what no ledger has written."""
    key, *texts = row
    if not all(isinstance(text, str) for text in (key, *texts)):
        raise TypeError(f"the call {key!r:.20} has a field of another type")
    if not all(isinstance(json.loads(text), dict) for text in itertools.islice(texts, 1, None)):
        raise ValueError(f"the call {key!r:.20} holds no JSON object")


def _number_of(row: list[Any]) -> int:
    return int(sha256_hex(json.dumps(row).encode()), 16) >> (256 - _BITS)
