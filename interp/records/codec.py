"""Records <-> JSON, with every field checked on the way in."""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from sae.core.errors import UserError
from sae.core.files import read_jsonl, repair_jsonl

Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """Plain JSON values of a record: NaN becomes None, tuples lists, bytes base64 text."""
    return {name: _plain(getattr(record, name)) for name in _names(cast(Any, type(record)))}


def from_json(cls: type[Record], values: Mapping[str, Any]) -> Record:
    """Build a record from `to_json`'s values.

    Raises `UserError` for a field that is missing or unknown.
    """
    record: Record = _reader_of(cast(Any, cls))(values)
    return record


_Reader = Callable[[Any], Any]
"""JSON value -> a field's value."""


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return to_json(value) if dataclasses.is_dataclass(value) else value


@functools.cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@functools.cache
def _reader_of(cls: type[Any]) -> _Reader:
    """A function that builds `cls` from JSON values; what each field needs is found out once."""
    readers = {name: _reader(hint) for name, hint in get_type_hints(cls).items()}
    names = frozenset(readers)

    def read(values: Mapping[str, Any]) -> Any:
        if names != frozenset(values):
            _check_names(cls, values)
        return cls(
            **{
                name: value if (convert := readers[name]) is None else convert(value)
                for name, value in values.items()
            }
        )

    return read


def _check_names(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Raise `UserError` for an unknown field, or for one that is missing and has no default."""
    known = _names(cast(Any, cls))
    for name in values:
        if name not in known:
            raise UserError(f"a stored {cls.__name__} has the unknown field {name!r}")
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise UserError(f"a stored {cls.__name__} lacks the field {field.name!r}")


def _reader(hint: Any) -> _Reader | None:
    """How a value of this type is read; None when it is taken as it stands."""
    if get_origin(hint) is types.UnionType:  # only `X | None` occurs
        inner = _reader(next(arg for arg in get_args(hint) if arg is not types.NoneType))
        return None if inner is None else lambda value: None if value is None else inner(value)
    if hint is float:
        return lambda value: math.nan if value is None else float(value)
    if hint is bytes:
        return base64.b64decode
    if dataclasses.is_dataclass(hint):
        return _reader_of(cast(Any, hint))
    if get_origin(hint) is dict:
        return _dict_reader(_reader(get_args(hint)[1]))
    if get_origin(hint) is tuple:
        return _tuple_reader(get_args(hint))
    return None


def _dict_reader(inner: _Reader | None) -> _Reader:
    if inner is None:
        return lambda value: dict(value.items())
    return lambda value: {key: inner(item) for key, item in value.items()}


def _tuple_reader(args: tuple[Any, ...]) -> _Reader:
    if args[-1] is not Ellipsis:
        readers = [_reader(arg) or _as_it_stands for arg in args]
        return lambda values: tuple(read(item) for read, item in zip(readers, values, strict=True))
    inner = _reader(args[0])
    return tuple if inner is None else lambda values: tuple(map(inner, values))


def _as_it_stands(value: Any) -> Any:
    return value


def finished(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON Lines file; a torn last line is cut off, a missing file is empty."""
    repair_jsonl(path)
    return read_jsonl(path)
