"""Everything that opens a foreign file: nothing is executed, nothing huge is allocated.

Every error is one line: an unreadable, truncated, hostile or oversized file is a `UserError`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.errors import UserError
from sae.interchange.unpickle import (
    DAMAGE,
    Storage,
    Stub,
    Unfit,
    load_legacy,
    load_pickle,
    tensors_in,
)

__all__ = ["Found", "json_object", "settings_of", "tensor_file", "torch_dict"]

MAX_JSON = 1 << 24
"""Bytes of a JSON file or header: the peers' are under 10 kB."""
MAX_FILES = 10_000
_LFS = b"version https://git-lfs"
_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""With which torch began its files before version 1.6."""
_GZIP = b"\x1f\x8b"
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, *DAMAGE)


@dataclass(frozen=True)
class Found:
    """What lies at a path: one file, or a folder's files. Read when asked for, and only once."""

    path: Path
    names: tuple[str, ...]
    """Files, relative to `folder`, with "/"; of a single file its own name."""
    head: bytes
    """A single file's first 64 bytes; empty for a folder."""
    _read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, path: Path | str) -> Found:
        """Look at a path. A .safetensors or .json file stands for the folder that it is in."""
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path} does not exist; `sae import` takes a file or a folder")
        if path.is_file() and path.suffix in (".safetensors", ".json"):
            _refuse_pointer(path)
            here = sorted(p.name for p in path.parent.iterdir() if p.is_file())
            return cls(path.parent, tuple(here), b"")
        if path.is_file():
            return cls(path, (path.name,), _refuse_pointer(path))
        return cls(path, _names(path), b"")

    @property
    def is_file(self) -> bool:
        return self.path.is_file()

    @property
    def folder(self) -> Path:
        return self.path.parent if self.is_file else self.path

    def find(self, *names: str) -> str:
        """The shortest relative path of a file with one of these names, or ""."""
        hits = [n for n in self.names if n.rpartition("/")[2] in names]
        return min(hits, key=lambda n: (n.count("/"), n), default="")

    def beside(self, name: str, other: str) -> str:
        """`other` in the same folder as the file `name`, or "" when it is not there."""
        path = name.rpartition("/")[0]
        wanted = f"{path}/{other}" if path else other
        return wanted if wanted in self.names else ""

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        return cast(dict[str, Any], self._once(name, lambda: json_object(self.folder / name)))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All tensors of a safetensors file."""
        return cast(dict[str, Tensor], self._once(name, lambda: tensor_file(self.folder / name)))

    def torch(self, name: str = "") -> Any:
        """What a torch or pickle file holds; without a name, of the single file.

        None when the path is a folder or the file is of neither kind.
        """
        if not name and not self.is_file:
            return None
        name = name or self.names[0]
        return self._once(name, lambda: torch_dict(self.folder / name))

    def _once(self, name: str, read: Any) -> Any:
        if name not in self._read:
            self._read[name] = read()
        return self._read[name]


def torch_dict(source: Path | bytes) -> Any:
    """What a torch file, or a (gzipped) pickle of tensors, holds. See `unpickle` for the rules.

    A line before the zip, as saev writes it, is passed over. None when it is no such file.
    """
    name = str(source) if isinstance(source, Path) else "the file"
    if isinstance(source, Path):
        _refuse_pointer(source)
    try:
        return _load(source)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except _ZIP_DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name} is truncated or damaged ({reason}); fetch it again") from None


def tensor_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    _refuse_pointer(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > min(path.stat().st_size, MAX_JSON):
            raise Unfit(f"its header tells {length} bytes")
        state = load_file(path)
    except (SafetensorError, OSError, *DAMAGE) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is truncated or damaged ({reason}); fetch it again") from None
    for name, value in state.items():
        n_bad = int(value.numel() - torch.isfinite(value).sum()) if value.is_floating_point() else 0
        if n_bad:
            raise UserError(
                f"{path}: {name} {tuple(value.shape)} has {n_bad} values that are not finite "
                "(NaN or infinite); the file is damaged"
            )
    return state


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of reasonable size."""
    _refuse_pointer(path)
    try:
        if path.stat().st_size > MAX_JSON:
            raise Unfit(f"{path.stat().st_size} bytes are too many for settings")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return values


def settings_of(config: object) -> dict[str, Any]:
    """A pickled config as plain values: a dict stays, a stub gives what it holds."""
    if isinstance(config, Stub):
        return config.settings
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    return {}


def _names(folder: Path) -> tuple[str, ...]:
    names: list[str] = []
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        if len(here.parts) > 4:
            folders.clear()
        names += [(here / name).as_posix() for name in files]
        if len(names) > MAX_FILES:
            raise UserError(f"{folder} has more than {MAX_FILES} files; name the SAE's own folder")
    return tuple(sorted(names))


def _refuse_pointer(path: Path) -> bytes:
    """A file's first bytes. Raises `UserError` for an empty file and a Git LFS pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if not head:
        raise UserError(f"{path} is empty; fetch it again")
    if head.startswith(_LFS):
        raise UserError(
            f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` where it came from"
        )
    return head


def _load(source: Path | bytes) -> Any:
    if isinstance(source, bytes):
        file: Any = io.BytesIO(source)
        size, head = len(source), source[:64]
    else:
        file = source.open("rb")
        size, head = source.stat().st_size, _refuse_pointer(source)
    with file:
        if head.startswith(_GZIP):
            return tensors_in(load_pickle(io.BytesIO(_inflated(file, size))))
        if head[:1] == b"{" or head.startswith(b"PK"):
            return tensors_in(_load_zip(file, size))
        if head.startswith(b"\x80"):
            data = file.read()
            legacy = _MAGIC in data[:32]
            return tensors_in(load_legacy(data) if legacy else load_pickle(io.BytesIO(data)))
    return None


def _inflated(file: Any, size: int) -> bytes:
    """The content of a gzip file. Weights hardly shrink: more than twice the size is a bomb."""
    limit = 2 * size + (1 << 16)
    data = gzip.GzipFile(fileobj=file).read(limit + 1)
    if len(data) > limit:
        raise Unfit(f"it unpacks to more than {limit} bytes, twice its size")
    return data


def _load_zip(file: Any, size: int) -> Any:
    archive = zipfile.ZipFile(file)
    entries = {entry.filename: entry for entry in archive.infolist()}
    if sum(entry.file_size for entry in entries.values()) > 2 * size:
        raise Unfit("it unpacks to more than twice its size")
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Unfit("a zip without the data.pkl of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(root + "byteorder")
    if order is not None and archive.read(order) != b"little":
        raise Unfit("written on a machine of another byte order")
    return load_pickle(io.BytesIO(archive.read(pickles[0])), _zip_storage(archive, root))


def _zip_storage(archive: zipfile.ZipFile, root: str) -> Any:
    read: dict[str, bytearray] = {}

    def content(key: str, n_bytes: int) -> bytearray:
        if key not in read:
            entry = archive.getinfo(f"{root}data/{key}")
            if entry.file_size < n_bytes:
                raise Unfit(f"storage {key} has {entry.file_size} bytes, not {n_bytes}")
            read[key] = bytearray(archive.read(entry))
        return read[key]

    def storage(dtype: torch.dtype, key: str, n: int) -> Storage:
        return Storage(dtype, n, lambda: content(key, n * dtype.itemsize))

    return storage
