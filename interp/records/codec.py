"""Records <-> JSON values and JSON Lines, with every field checked on the way in."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sae.core.files import build_strictly, walk_jsonl

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """Plain JSON values of a record: a NaN `Figure` becomes None, tuples lists."""
    values: dict[str, Any] = _adapter(cast(Any, type(record))).dump_python(record, mode="json")
    return values


def from_json(cls: type[Record], values: Mapping[str, Any], place: str = "") -> Record:
    """Build a record from `to_json`'s values.

    Raises `UserError`, which begins with `place`, for a field that is missing, unknown or of a
    wrong type.
    """
    return build_strictly(cls, values, place or f"a stored {cls.__name__}")


def read_records(path: Path, cls: type[Record]) -> Iterator[Record]:
    """The records of a JSON Lines file in its order; a missing file is empty. Writes nothing.

    Raises `UserError` with file, line and field where a line is no such record.
    """
    for line in walk_jsonl(path):
        yield from_json(cls, line.values, f"{path}, line {line.number},")


@functools.cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)
