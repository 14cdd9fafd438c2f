"""A parquet table with a column of images -> their rows, classes and bytes, read where they lie.

As Hugging Face's data sets are written: a column `image` of {bytes, path}, a column `label` whose
numbers the file's own metadata names.
"""

from __future__ import annotations

import errno
import functools
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae.core.errors import UserError
from sae.data.sources.member import Member

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "image_bytes", "bytes")
"""Names of columns of images, the first of which counts."""
CLASSES = ("label", "class", "labels", "fine_label", "category", "cls")
MOST_GROUP = 2 << 30
"""Bytes of the images of one row group, which are read together."""
_N_GROUPS = 2
_N_FILES = 64
_at_once = threading.Lock()
"""An open table is read by one thread at a time."""


def image_column(table: Path) -> str | None:
    """The name of its column of images; None where it has none, or is no parquet file."""
    import pyarrow as pa

    try:
        schema = _open_now(table).schema_arrow
    except (OSError, pa.ArrowException):
        return None
    return next((name for name in IMAGES if _holds_bytes(schema, name)), None)


def list_members(table: Path) -> list[Member]:
    """Its rows, with their classes."""
    file = _open_now(table)
    n, names = file.metadata.num_rows, file.schema_arrow.names
    column = next((name for name in CLASSES if name in names), None)
    if column is None:
        return [Member(str(row), None) for row in range(n)]
    called = _class_names(file.schema_arrow, column)
    values = file.read(columns=[column], use_threads=False)[column].to_pylist()
    return [Member(str(row), _name(value, called)) for row, value in enumerate(values)]


def read_member(table: Path, name: str, most: int) -> bytes:
    """The bytes of a row's image. Raises `OSError` when it has none, or more than `most`."""
    column = image_column(table)
    if column is None or not name.isascii() or not name.isdigit():
        raise FileNotFoundError(errno.ENOENT, "the table has no such row of images")
    with _at_once:
        data = _find_row(table, column, int(name))
    if not data:
        raise OSError(errno.ENODATA, "the row has no image")
    if len(data) > most:
        raise OSError(errno.EFBIG, f"{len(data):,} bytes is above the cap of {most:,}")
    return data


def size_of(table: Path, _name: str) -> int:
    """Bytes of the whole table: a row's own would have to be read."""
    return table.stat().st_size


def _find_row(table: Path, column: str, row: int) -> bytes:
    status, groups = table.stat(), _open_now(table).metadata
    for group in range(groups.num_row_groups):
        n = groups.row_group(group).num_rows
        if row < n:
            images = _images(table, status.st_size, status.st_mtime_ns, column, group)
            return bytes(images[row].as_py() or b"")
        row -= n
    raise FileNotFoundError(errno.ENOENT, "the table has no such row of images")


def _open_now(table: Path) -> ParquetFile:
    status = table.stat()
    return _open(table, status.st_size, status.st_mtime_ns)


@functools.lru_cache(_N_FILES)
def _open(table: Path, _size: int, _changed: int) -> ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(table)


@functools.lru_cache(_N_GROUPS)
def _images(table: Path, _size: int, _changed: int, column: str, group: int) -> pa.ChunkedArray:
    """(rows of the group,) the bytes."""
    import pyarrow as pa

    file = _open_now(table)
    parts = file.metadata.row_group(group)
    chunks = (parts.column(number) for number in range(parts.num_columns))
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.startswith(column))
    if size > MOST_GROUP:
        raise OSError(
            errno.EFBIG, f"its row group holds {size / 1e9:.1f} GB; write it with smaller ones"
        )
    try:
        [found] = file.read_row_group(group, columns=[column], use_threads=False).columns
    except (OSError, pa.ArrowException) as error:
        raise OSError(errno.EIO, " ".join(str(error).split())[:200]) from None
    if pa.types.is_struct(found.type):
        return pa.chunked_array([chunk.field("bytes") for chunk in found.chunks])
    return found


def _holds_bytes(schema: pa.Schema, name: str) -> bool:
    import pyarrow as pa

    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        if place < 0:
            return False
        kind = kind.field(place).type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """What the numbers of a class mean, by the metadata that Hugging Face's `datasets` writes."""
    try:
        told: Any = json.loads((schema.metadata or {})[b"huggingface"])
        names = told["info"]["features"][column]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list else []


def _name(value: object, called: list[str]) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and 0 <= value < len(called):
        return called[value]
    if isinstance(value, int | str):
        return " ".join(str(value).split())
    raise UserError(f"a class is {type(value).__name__}, not a name or a number: {value!r:.40}")
