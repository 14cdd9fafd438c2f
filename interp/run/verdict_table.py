"""Verdicts of all scores of a run -> rows of numbers: a tenth of what they take as records."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.records.evidence import KINDS
from interp.records.types import Verdict

FIELDS: Mapping[str, frozenset[type[Any]]] = {
    "image_id": frozenset({str}),
    "domain": frozenset({str}),
    "kind": frozenset({str}),
    "row": frozenset({int}),
    "truth": frozenset({bool}),
    "act": frozenset({float, int, NoneType}),
    "score": frozenset({float, int, NoneType}),
    "stratum": frozenset({int}),
    "call": frozenset({int}),
    "weight": frozenset({float, int, NoneType}),
}
"""Of a verdict, and of what types each is in JSON that can be taken as it stands."""
N_FIRST = 8
"""The first of them were always written, older files lack the others."""
N_KEPT = 7
ROW = np.dtype(
    [
        ("image", "i4"),
        ("domain", "i4"),
        ("kind", "i4"),
        ("row", "i8"),
        ("truth", "?"),
        ("act", "f8"),
        ("grade", "f8"),
    ]
)
"""Of the fields that are kept: `image`, `domain` and `kind` are places in the table's lists,
`grade` is the score, NaN where no usable answer came."""
CODES = "iiiqbdd"
KNOWN = frozenset(KINDS)
Rows = NDArray[np.void]
_kept = attrgetter(*tuple(FIELDS)[:N_KEPT])
_first, _all = itemgetter(*tuple(FIELDS)[:N_FIRST]), itemgetter(*FIELDS)


class VerdictTable:
    """Verdicts by score line. State: a column for each field, and the words that they point to."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self._columns = [array(code) for code in CODES]
        self._lines: dict[int, slice] = {}

    def add(self, start: int, verdicts: Iterable[Verdict]) -> None:
        """Keep the verdicts of the line that starts at this byte."""
        self._append(start, list(zip(*map(_kept, verdicts), strict=True)))

    def add_json(self, start: int, values: Any) -> bool:
        """The same of their JSON. False, and none is kept, where that is not plainly of verdicts:
        what is wrong, if anything is, is said where records are made of it."""
        try:
            has_all = bool(values) and len(values[0]) == len(FIELDS)
            columns = list(zip(*map(_all if has_all else _first, values), strict=True))
            if not isinstance(values, list) or not {len(columns)}.issuperset(map(len, values)):
                return False
        except (KeyError, TypeError, IndexError):
            return False
        if not all(map(_fits, FIELDS.values(), columns)) or (columns and not _is_sound(columns)):
            return False
        self._append(start, columns[:N_KEPT])
        return True

    def places(self, start: int) -> slice:
        """Which `rows` are of the line that starts at this byte, in their order."""
        return self._lines[start]

    def rows(self) -> Rows:
        """Of all lines, in the order they were added."""
        found = np.empty(len(self._columns[0]), ROW)
        for name, column in zip(ROW.names or (), self._columns, strict=True):
            found[name] = column
        return found

    @property
    def image_ids(self) -> list[str]:
        """That `image` points into."""
        return list(self._ids)

    @property
    def words(self) -> list[str]:
        """That `domain` and `kind` point into."""
        return list(self._words)

    def _append(self, start: int, columns: Sequence[Sequence[Any]]) -> None:
        first = len(self._columns[0])
        if columns:
            ids, domains, kinds, rows, truths, acts, grades = columns
            codes = (_codes(self._ids, ids), *(_codes(self._words, of) for of in (domains, kinds)))
            figures = (_known(of) for of in (acts, grades))
            for column, values in zip(self._columns, (*codes, rows, truths, *figures), strict=True):
                column.extend(values)
        self._lines[start] = slice(first, len(self._columns[0]))


def _fits(types: frozenset[type[Any]], column: Sequence[Any]) -> bool:
    return types.issuperset(map(type, column))


def _is_sound(columns: Sequence[Sequence[Any]]) -> bool:
    """Whether kinds are known, and no number is as large as those that records refuse."""
    _, _, kinds, rows, _, acts, grades, *more = columns
    return (
        KNOWN.issuperset(kinds)
        and all(_are_within(of, -(2**63), 2**63 - 1) for of in (rows, acts, *more))
        and _are_within(grades, 0, 100)
    )


def _are_within(column: Sequence[float | None], low: float, high: float) -> bool:
    there: Any = [one for one in column if one is not None] if None in column else column
    return not there or (low <= min(there) and max(there) <= high)


def _codes(known: dict[str, int], words: Sequence[str]) -> list[int]:
    try:
        return list(map(known.__getitem__, words))
    except KeyError:
        return [known.setdefault(word, len(known)) for word in words]


def _known(values: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
