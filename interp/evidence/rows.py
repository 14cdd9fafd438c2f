"""Tables of evidence, read by columns -> the records of one latent, quickly and in any order.

By rows, through Arrow's own values, a latent costs seven times as much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from interp.records.evidence import N_BINS, Example, HeldOut, LatentStats

Values = Callable[[slice], list[Any]]
"""The Python values in a part of a column."""


class ExampleRows:
    """A table of examples, by latent; a latent costs a slice."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._values = [_column_reader(table[field.name]) for field in dataclasses.fields(Example)]
        self._owners = numbers(table["latent"].combine_chunks())

    def of(self, latent: int) -> tuple[Example, ...]:
        """In the order on disk: side, kind, rank."""
        return self.at(self.places(latent))

    def at(self, part: slice) -> tuple[Example, ...]:
        """The examples in these lines of the table."""
        return tuple(map(_example, *(values(part) for values in self._values)))

    def places(self, latent: int) -> slice:
        """The lines of the table that are of one latent."""
        ends = np.array([latent, latent + 1], self._owners.dtype)
        return slice(*np.searchsorted(self._owners, ends).tolist())

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of numbers as a whole."""
        return numbers(self.table[name].combine_chunks())

    def texts(self, name: str) -> tuple[NDArray[Any], list[str]]:
        """A column of texts as a whole: of each line a place in the list of its words."""
        column = self.table[name].combine_chunks()
        return numbers(column.indices), column.dictionary.to_pylist()

    def has_heat(self) -> NDArray[np.bool_]:
        """Of each line, whether it has a heat map."""
        found: NDArray[np.bool_] = self.table["heat"].is_valid().to_numpy()
        return found

    def heats(self, places: NDArray[np.int64]) -> list[bytes | None]:
        """The heat maps in some lines of the table."""
        column = self.table["heat"]
        if column.null_count == len(column):
            return [None] * len(places)
        found: list[bytes | None] = column.take(pa.array(places)).to_pylist()
        return found


class LatentRows:
    """A table of latents, without empty cells, in their order."""

    def __init__(self, table: pa.Table) -> None:
        nested = {"hist", "domain_rate", "top_classes", "held_out"}
        names = [field.name for field in dataclasses.fields(LatentStats)]
        whole = slice(0, len(table))
        self._plain = {name: _column_reader(table[name])(whole) for name in {*names} - nested}
        self._hist = numbers(table["hist"].combine_chunks().flatten()).reshape(-1, N_BINS)
        rates = table["domain_rate"].combine_chunks()
        columns = (_column_reader(column)(whole) for column in rates.flatten())
        self._rates = dict(zip(rates.type.names, columns, strict=True))
        self._classes, self._held_out = _Lists(table["top_classes"]), _Lists(table["held_out"])

    def of(self, latent: int) -> LatentStats:
        return LatentStats(
            **{name: values[latent] for name, values in self._plain.items()},
            hist=tuple(self._hist[latent].tolist()),
            domain_rate={name: values[latent] for name, values in self._rates.items()},
            top_classes=tuple(self._classes.of(latent)),
            held_out=tuple(map(HeldOut._make, self._held_out.of(latent))),
        )


class _Lists:
    """A column of lists of records."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        lists = column.combine_chunks()
        self._ends = np.cumsum([0, *pc.list_value_length(lists).to_pylist()])
        records = lists.flatten()  # no structs where older tables lack the column
        parts = records.flatten() if pa.types.is_struct(records.type) else []
        self._fields = [_column_reader(part) for part in parts]

    def of(self, row: int) -> list[tuple[Any, ...]]:
        part = slice(*self._ends[row : row + 2].tolist())
        return list(zip(*(values(part) for values in self._fields), strict=True))


def numbers(values: pa.Array) -> NDArray[Any]:
    """The numbers of a column without empty cells, where they lie."""
    # Not `values.to_numpy()`: that imports pandas.
    found: NDArray[Any] = np.from_dlpack(values)
    return found


def _column_reader(column: pa.ChunkedArray | pa.Array) -> Values:
    if pa.types.is_binary(column.type):
        return _heats(column)
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(whole.type):
        found = numbers(whole)
        return lambda part: found[part].tolist()
    codes = numbers(whole.indices)
    texts = np.array(whole.dictionary.to_pylist(), dtype=object)
    return lambda part: texts[codes[part]].tolist()


def _heats(column: pa.ChunkedArray) -> Values:
    if column.null_count == len(column):
        return lambda part: [None] * (part.stop - part.start)
    return lambda part: column[part].to_pylist()


def _example(
    latent: Any,
    side: Any,
    kind: Any,
    rank: Any,
    stratum: Any,
    row: Any,
    image_id: Any,
    domain: Any,
    label: Any,
    path: Any,
    act: Any,
    heat: Any,
    peak: Any,
    group: Any,
) -> Example:
    """As `Example(...)`, which takes four times as long: it sets each of its fields, which are
    frozen, by a call. Millions are made."""
    made = object.__new__(Example)
    vars(made).update(
        latent=latent,
        side=side,
        kind=kind,
        rank=rank,
        stratum=stratum,
        row=row,
        image_id=image_id,
        domain=domain,
        label=label,
        path=path,
        act=act,
        heat=heat,
        peak=peak,
        group=group,
    )
    return made
