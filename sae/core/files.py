"""Values -> files, complete or absent; JSON and JSON Lines -> dataclasses, read strictly."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import os
import reprlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_type_hints

from sae.core.disk import errors_of, refusal, require_room
from sae.core.errors import Notice, UserError
from sae.core.lock import hold

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import SchemaValidator
    from torch import Tensor

FORMAT = 1
"""The number in every JSON file that we write; a reader refuses any other by name."""

MOST_JSON = 2 << 20
"""Bytes of a JSON file of settings, or of a line: ours are far smaller, and a value can cost 30."""

Config = TypeVar("Config")
_LIMITS: dict[object, dict[str, Any]] = {
    "bool": {"strict": True},
    "int": {"strict": True, "ge": -(2**63), "le": 2**63 - 1},
    "float": {"strict": True, "allow_inf_nan": False},
    "str": {"strict": True},
    "dataclass-args": {"extra_behavior": "forbid"},
}
"""What pydantic's schema of a plain type is narrowed by: no type for another, no huge number."""
_URGENCY = {"unexpected_keyword_argument": 0, "extra_forbidden": 0, "missing": 1}


class NotJson(UserError):
    """No JSON at all: torn, or overwritten."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield `<path>.part` to write to; it becomes `path` only when the block ends well."""
    part = path.with_name(path.name + ".part")
    with errors_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def replacing_folder(target: Path, resume: bool = False) -> Iterator[Path]:
    """Yield an empty `<target>.part` to fill; it becomes `target` only when the block ends well.

    With `resume` an unfinished folder that holds anything is kept, and given to the next call as it
    is.
    """
    if target.name in ("", ".."):
        raise UserError(f"{target} cannot be put in place as a whole; name a folder inside it")
    lock, part, old = (target.with_name(f"{target.name}.{end}") for end in ("lock", "part", "old"))
    with closing(hold(lock)), errors_of(target):
        if old.exists() and not target.exists():  # stopped between the two renames below
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        if not resume:
            shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, exist_ok=resume)
        try:
            yield part
            if target.exists():
                target.rename(old)
            part.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            if not resume or (part.exists() and not any(part.iterdir())):
                shutil.rmtree(part, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, atomically, with the rights of any new file.

    Raises `UserError` where there is no room for it.
    """
    from safetensors.torch import save_file

    require_room(path.parent, sum(tensor.nbytes for tensor in tensors.values()))
    # In a folder: the library writes to a name of its own first, which a kill would leave behind.
    part = path.with_name(path.name + ".part")
    with errors_of(path):
        try:
            part.mkdir(parents=True, exist_ok=True)
            save_file(dict(tensors), part / path.name)
            (part / path.name).chmod(part.stat().st_mode & 0o666)
            os.replace(part / path.name, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain JSON value, atomically."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    with replacing(path) as part:
        part.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_config(path: Path, cls: type[Config], remedy: str = "") -> Config:
    """Read one flat dataclass with `"format": 1`.

    Raises `UserError` when the file is missing (`remedy` is the next command), is no JSON object,
    has another format number, or a field is missing, unknown or of a wrong type.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MOST_JSON else None
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise refusal(error) or error from None
        raise UserError(
            f"{path} is missing (unfinished?)" + (f"; {remedy}" if remedy else "")
        ) from None
    if data is None:
        raise UserError(f"{path} has more than {MOST_JSON:,} bytes: these are no settings of ours")
    values = parse_object(data, str(path))
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {reprlib.repr(values.get('format'))}; "
            f"this version reads format {FORMAT}"
        )
    return build_strictly(cls, values, str(path))


def parse_object(data: bytes, place: str) -> dict[str, Any]:
    """One JSON object. Raises `UserError`, which begins with `place`, for anything else."""
    from pydantic_core import from_json

    try:
        values = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(f"{place} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{place} does not hold a JSON object")
    return values


def build_strictly(cls: type[Config], values: Mapping[str, Any], place: str) -> Config:
    """A dataclass or NamedTuple from JSON values, every field checked against its type.

    Raises `UserError`, which begins with `place` and names the field, for the first that is
    unknown, missing without a default, of another type, or a number beyond 64 bits.
    """
    from pydantic import ValidationError

    try:
        record: Config = _validator(cast(Any, cls)).validate_python(values)
    except ValidationError as error:
        raise UserError(f"{place} {_fault(error, cls)}") from None
    except UserError as error:  # what the settings say of themselves
        raise UserError(f"{place} does not fit: {error}", error.exit_code) from None
    return record


@functools.cache
def _validator(cls: type[Any]) -> SchemaValidator:
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_narrowed(TypeAdapter(cls).core_schema))


def _narrowed(schema: Any) -> Any:
    """The schema with `_LIMITS` on all of its parts."""
    if isinstance(schema, dict):
        limits = _LIMITS.get(schema.get("type"), {})
        return {name: _narrowed(part) for name, part in schema.items()} | limits
    return type(schema)(map(_narrowed, schema)) if isinstance(schema, (list, tuple)) else schema


def _fault(error: ValidationError, cls: type[Any]) -> str:
    """The first unknown field; else the first missing one; else the first of a wrong type."""
    faults = error.errors(include_url=False, include_context=False)
    fault = min(faults, key=lambda fault: _URGENCY.get(fault["type"], 2))
    name, said = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    if fault["type"] in _URGENCY:
        known = get_type_hints(cls)
        unknown = f"has the unknown key {name!r}{did_you_mean(name, known)}"
        return f"lacks the key {name!r}" if fault["type"] == "missing" else unknown
    if not name:  # what a record says of itself as a whole
        return f"does not fit: {said}"
    return f"has {name!r} {reprlib.repr(fault['input'])}: {said[0].lower()}{said[1:]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], *, durable: bool = False) -> None:
    """Append one JSON object a line. When this returns the lines outlive the process, killed or
    not; a power cut may cost the last ones, unless `durable` waits for the disk, which takes tens
    of milliseconds."""
    with errors_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if durable and is_new and os.name != "nt":  # the name of a new file is in its folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class JsonLine(NamedTuple):
    """A complete line of a JSON Lines file."""

    number: int
    """From 1."""
    span: tuple[int, int]
    """Its first byte in the file, and the one behind its last."""
    values: dict[str, Any]


def walk_jsonl(path: Path) -> Iterator[JsonLine]:
    """Every complete line, one in memory at a time.

    A missing file is empty, a torn line costs that line, an empty line counts for nothing; torn
    ones before the last are named in a `Notice`. Raises `UserError` with the number of a line that
    holds JSON, but no object that is ours to read. Writes nothing.
    """
    if not path.exists():
        return
    torn: list[int] = []
    with path.open("rb") as file:
        end = number = 0
        while line := file.readline(MOST_JSON):
            number, start, end = number + 1, end, end + len(line)
            is_whole = line.endswith(b"\n")
            while line and not line.endswith(b"\n"):  # too long for a line of ours, or the last
                line = file.readline(MOST_JSON)
                end += len(line)
            if not is_whole:
                torn += [number] if line else []
                continue
            if line == b"\n":
                continue
            place = f"{path}, line {number},"
            try:
                values = parse_object(line, place)
            except NotJson:
                if not _is_torn(line):
                    raise
                torn.append(number)
                continue
            yield JsonLine(number, (start, end), values)
    if torn:
        named = ", ".join(map(str, torn[:5])) + (", ..." if len(torn) > 5 else "")
        told = f"{path}: {len(torn)} damaged lines are passed over (line {named})"
        warnings.warn(told, Notice, stacklevel=2)


def _is_torn(line: bytes) -> bool:
    """Whether it is cut or overwritten, and not only of numbers or texts that are refused."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of `walk_jsonl`, all at once."""
    return [line.values for line in walk_jsonl(path)]


def repair_jsonl(path: Path) -> None:
    """Cut a torn last line off, so that appending goes on with a fresh one."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        n_bytes = whole = file.seek(0, os.SEEK_END)
        while whole:  # backwards, a part at a time
            first = max(0, whole - MOST_JSON)
            file.seek(first)
            found = file.read(whole - first).rfind(b"\n")
            if found >= 0:
                whole = first + found + 1
                break
            whole = first
        if whole < n_bytes:
            file.truncate(whole)


def sha256_hex(data: bytes) -> str:
    """Content hash as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    """The same of a file, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_version() -> str:
    """Our own version, as installed; "0" in a bare checkout."""
    from importlib.metadata import PackageNotFoundError, version  # .04 s, at each start

    try:
        return version("sae-interp")
    except PackageNotFoundError:
        return "0"
