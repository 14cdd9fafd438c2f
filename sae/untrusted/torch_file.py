"""A torch file, or a pickle of tensors -> what it holds; no size that it tells is believed."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import torch

from sae.core.errors import UserError
from sae.untrusted.damage import DAMAGE, Unfit, first_bytes, reason
from sae.untrusted.pickle_machine import Budget
from sae.untrusted.pickle_names import ReadStorage, Storage
from sae.untrusted.unpickle import is_legacy, load_legacy, load_pickle, tensors_in

MAX_AT_ONCE = 1 << 20
"""Bytes of a zip that are read at once, and of its table of contents: torch needs 100 an entry."""
_GZIP = b"\x1f\x8b"


def torch_dict(source: Path | bytes, wide: bool = False) -> Any:
    """What a torch file, or a (gzipped) pickle of tensors, holds. See `unpickle` for the rules.

    With `wide`, half precision comes as float32. A line before the zip, as saev writes it, is
    passed over. None when it is no such file.
    """
    name = str(source) if isinstance(source, Path) else "the file"
    if isinstance(source, Path):
        first_bytes(source)
    try:
        with _opened(source) as file:
            return _load(_Bounded(file), wide)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except (zipfile.BadZipFile, zlib.error, *DAMAGE) as error:
        raise UserError(
            f"{name} is truncated or damaged ({reason(error)}); fetch it again"
        ) from None


class _Bounded:
    """A file whose reads end where it ends: `read` of Python's files allocates what it is told."""

    def __init__(self, file: IO[bytes], limit: int | None = None) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        self.limit = self.size if limit is None else limit
        file.seek(0)

    def read(self, n: int = -1) -> bytes:
        left = max(0, self.size - self.file.tell())
        n = left if n < 0 else min(n, left)
        if n > self.limit:
            raise Unfit(f"a part of {n} bytes, more than any checkpoint has")
        return self.file.read(n)

    def readinto(self, out: bytearray) -> int:
        return cast(int, self.file.readinto(out))  # type: ignore[attr-defined]

    def readline(self) -> bytes:
        return self.file.readline()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def _opened(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _load(file: _Bounded, wide: bool) -> Any:
    head = file.read(64)
    file.seek(0)
    if head.startswith(_GZIP):
        return tensors_in(_of_gzip(file), wide)
    return tensors_in(_of_plain(file, head), wide)


def _of_gzip(file: _Bounded) -> Any:
    """The content of a gzip file. Weights hardly shrink: more than twice the size is a bomb."""
    limit = 2 * file.size + (1 << 16)
    data = gzip.GzipFile(fileobj=cast(IO[bytes], file)).read(limit + 1)
    if len(data) > limit:
        raise Unfit(f"it unpacks to more than {limit} bytes, twice its size")
    return _of_plain(_Bounded(io.BytesIO(data)), data[:64])


def _of_plain(file: _Bounded, head: bytes) -> Any:
    if head.startswith((b"{", b"PK")):
        return _of_zip(file)
    if not head.startswith(b"\x80"):
        return None
    budget = Budget(file.size)
    return load_legacy(file, budget) if is_legacy(head) else load_pickle(file, budget)


def _of_zip(file: _Bounded) -> Any:
    careful = _Bounded(file.file, MAX_AT_ONCE)
    archive = zipfile.ZipFile(cast(IO[bytes], careful))
    if sum(entry.file_size for entry in archive.infolist()) > 2 * file.size:
        raise Unfit("it unpacks to more than twice its size")
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Unfit("a zip without the data.pkl of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(root + "byteorder")
    if order is not None and _content(archive, order) != b"little":
        raise Unfit("written on a machine of another byte order")
    data = _content(archive, entries[pickles[0]])
    return load_pickle(io.BytesIO(data), Budget(len(data)), _zip_storage(archive, root))


def _zip_storage(archive: zipfile.ZipFile, root: str) -> ReadStorage:
    read: dict[str, bytearray] = {}

    def content(key: str, n_bytes: int) -> bytearray:
        if key not in read:
            entry = archive.getinfo(f"{root}data/{key}")
            if entry.file_size < n_bytes:
                raise Unfit(f"storage {key[:40]} has {entry.file_size} bytes, not {n_bytes}")
            read[key] = _content(archive, entry)
        return read[key]

    def storage(dtype: torch.dtype, key: str, n: int) -> Storage:
        return Storage(dtype, n, lambda: content(key, n * dtype.itemsize))

    return storage


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    """An entry's bytes, piece by piece: zipfile unpacks all there is before it looks at a size."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unfit("a kind of compression that torch does not write")
    content, n_read = bytearray(entry.file_size), 0
    view = memoryview(content)
    with archive.open(entry) as stored:
        while part := stored.read(MAX_AT_ONCE):
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
    if n_read < len(content):
        raise Unfit(f"{entry.filename[:80]} has {n_read} bytes, not {len(content)}")
    return content
