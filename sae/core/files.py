"""How files come to be: complete or absent. JSON of one flat dataclass, and JSON Lines."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from sae.core.errors import UserError

FORMAT = 1
"""The number in every JSON file that we write; a reader refuses any other by name."""

Config = TypeVar("Config")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield `<path>.part` to write to; it becomes `path` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain JSON value, atomically."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    with replacing(path) as part:
        part.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_config(path: Path, cls: type[Config], remedy: str = "") -> Config:
    """Read one flat dataclass with `"format": 1`.

    Raises `UserError` when the file is missing (`remedy` is the next command), is no JSON object,
    has another format number, or lacks or adds a field.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing (unfinished?)" + (f"; {remedy}" if remedy else "")
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return from_mapping(cls, values, path)


def from_mapping(cls: type[Config], values: Mapping[str, Any], path: Path) -> Config:
    """Build a dataclass from JSON values, refusing what does not fit by name."""
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {values.get('format')!r}; this version reads format {FORMAT}"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise UserError(f"{path} has the unknown key {name!r}{did_you_mean(name, fields)}")
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in values and not optional:
            raise UserError(f"{path} lacks the key {name!r}")
    return cls(**values)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line. When this returns the lines outlive the process, killed or
    not; a power cut may cost the last ones (a wait for the disk takes tens of milliseconds)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All complete lines; a missing file is empty, and a torn last line costs that line."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines if line]


def repair_jsonl(path: Path) -> None:
    """Cut a torn last line off, so that appending goes on with a fresh one."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def without_place(model: str) -> str:
    """A model's name as it may be published: of `local-dir:PATH` only the folder's own name."""
    kind, _, place = model.partition(":")
    return f"{kind}:{Path(place).name}" if kind == "local-dir" else model


def sha256_hex(data: bytes) -> str:
    """Content hash as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    """The same of a file, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_version() -> str:
    """Our own version, as installed; "0" in a bare checkout."""
    try:
        return version("sae-interp")
    except PackageNotFoundError:
        return "0"
