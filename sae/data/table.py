"""A parquet file of ours -> its table or frame, with the columns that are expected alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sae.core.errors import UserError
from sae.untrusted.damage import DAMAGE, one_line, reason

if TYPE_CHECKING:
    import pandas as pd

_NONE: Mapping[str, str] = MappingProxyType({})
Kind = Literal["text", "whole", "number", "bool", "bytes", "list", "struct"]
IMAGE_COLUMNS: Mapping[str, Kind] = {
    **dict.fromkeys(("image_id", "path", "domain", "label"), "text"),
    **dict.fromkeys(("width", "height"), "whole"),
}
"""Of images.parquet, and of the lists beside an unfinished store's shards."""
PART_ROWS = 1 << 16
"""Rows that `read_frames` has in memory at a time."""


def read_table(
    path: Path,
    columns: Mapping[str, Kind],
    remedy: str,
    may_be_null: tuple[str, ...] = (),
    added: Mapping[str, Any] = _NONE,
) -> pa.Table:
    """The table, checked value by value as far as Arrow can; columns in the order of the file.

    `added` are columns that older files lack, and what stands in them there. Raises `UserError`,
    with `remedy`, when it is missing, damaged or has other columns.
    """
    with _damage_of(path, remedy), pq.ParquetFile(path) as file:
        _require_columns(file.schema_arrow, columns, added)
        return _checked(file.read().unify_dictionaries(), columns, may_be_null, added)


def _checked(
    table: pa.Table,
    columns: Iterable[str],
    may_be_null: tuple[str, ...],
    added: Mapping[str, Any],
) -> pa.Table:
    table = table.combine_chunks()
    table.validate(full=True)
    for name in sorted({*added} & {*columns} - {*table.column_names}):
        table = table.append_column(name, pa.array([added[name]]).take([0] * len(table)))
    for name in columns:
        if name not in may_be_null and table[name].null_count:
            raise ValueError(f"the column {name} has empty cells")
    return table


def read_frame(
    path: Path, columns: Mapping[str, Kind], remedy: str, optional: Mapping[str, str] = _NONE
) -> pd.DataFrame:
    """The same as pandas has it; `optional` are columns of text and what stands in empty cells."""
    columns = {**columns, **dict.fromkeys(optional, "text")}
    table = read_table(path, columns, remedy, tuple(optional), optional)
    with _damage_of(path, remedy):
        return _to_frame(table.select(list(columns)), optional)


def read_frames(
    path: Path, columns: Mapping[str, Kind], remedy: str, optional: Mapping[str, str] = _NONE
) -> Iterator[pd.DataFrame]:
    """The same, some rows after the others: memory holds a part."""
    columns = {**columns, **dict.fromkeys(optional, "text")}
    with _damage_of(path, remedy), pq.ParquetFile(path, pre_buffer=False) as file:
        _require_columns(file.schema_arrow, columns, optional)
        for batch in file.iter_batches(PART_ROWS):
            part = _checked(pa.Table.from_batches([batch]), columns, tuple(optional), optional)
            yield _to_frame(part.select(list(columns)), optional)


def _to_frame(table: pa.Table, optional: Mapping[str, str]) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    for name, value in optional.items():
        frame[name] = frame[name].astype(object).fillna(value)
    return frame


def require_table(
    path: Path, columns: Mapping[str, Kind], remedy: str, added: Iterable[str] = ()
) -> None:
    """Look at the columns alone. Raises what `read_table` does."""
    with _damage_of(path, remedy), pq.ParquetFile(path) as file:
        _require_columns(file.schema_arrow, columns, added)


def _require_columns(
    schema: pa.Schema, columns: Mapping[str, Kind], added: Iterable[str] = ()
) -> None:
    lacking = {*added} - {*schema.names}
    columns = {name: kind for name, kind in columns.items() if name not in lacking}
    for name in sorted({*schema.names} ^ {*columns}):
        raise ValueError(f"the column {name!r} is {'missing' if name in columns else 'unknown'}")
    if len(schema.names) != len(columns):
        raise ValueError("a column is there twice")
    for name, kind in columns.items():
        if not _is(schema.field(name).type, kind):
            raise ValueError(f"the column {name!r} holds {schema.field(name).type}, not {kind}")


def _is(found: pa.DataType, kind: Kind) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    checks = {
        "text": (pa.types.is_string, pa.types.is_large_string),
        "whole": (pa.types.is_integer,),
        "number": (pa.types.is_floating,),
        "bool": (pa.types.is_boolean,),
        "bytes": (pa.types.is_binary,),
        "list": (pa.types.is_list, pa.types.is_fixed_size_list),
        "struct": (pa.types.is_struct,),
    }
    return any(check(found) for check in checks[kind])


@contextmanager
def _damage_of(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except (*DAMAGE, pa.ArrowException) as error:
        raise UserError(one_line(f"{path} is damaged ({reason(error)}); {remedy}")) from None
