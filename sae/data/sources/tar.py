"""A tar archive -> its images' names, classes and bytes, read where they lie.

As WebDataset and img2dataset write them: files of one name before the first dot belong together,
and `NAME.cls` holds the class of `NAME.jpg`. Without it the folders in the archive are the classes.
"""

from __future__ import annotations

import errno
import functools
import os
import tarfile
import warnings
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from sae.core.errors import Notice, UserError
from sae.core.places import IMAGE_SUFFIXES
from sae.data.sources.member import Member

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASS_SUFFIX = ".cls"
_MOST_CLASS = 256
"""Bytes of a class that are read."""
_N_INDEXES = 512
"""Archives of which a process remembers where each image begins: about 50 bytes an image."""
_BLOCK = 1 << 20
_NO_FILE = -1
"""Offset of a member that is a link, a folder or a device."""


class _Index(NamedTuple):
    """Where an archive's images and classes begin; by name, sorted."""

    names: NDArray[np.bytes_]  # (n,)
    offsets: NDArray[np.int64]  # (n,) bytes from the start; `_NO_FILE`
    sizes: NDArray[np.int64]  # (n,) bytes

    def find(self, name: str) -> tuple[int, int]:
        """Offset and size. Raises `OSError` when it is not there or no file."""
        wanted = os.fsencode(name)
        place = int(self.names.searchsorted(wanted))
        if place == len(self.names) or self.names[place] != wanted:
            raise FileNotFoundError(errno.ENOENT, "it is no longer in the archive")
        if self.offsets[place] == _NO_FILE:
            raise OSError(errno.EINVAL, "it is a link, a folder or a device in the archive")
        return int(self.offsets[place]), int(self.sizes[place])


def list_members(archive: Path) -> list[Member]:
    """Its images by name, with their classes. Raises `UserError` for what is no tar archive.

    Where an archive is damaged the images before that come back, and a `Notice` tells.
    """
    index = _index_now(archive)
    names = [os.fsdecode(name) for name in index.names.tolist()]
    classes = _read_classes(archive, index, names)
    images = (name for name in names if name.lower().endswith(IMAGE_SUFFIXES))
    return [Member(name, classes.get(_key(name))) for name in images]


def read_member(archive: Path, name: str, most: int) -> bytes:
    """Its bytes. Raises `OSError` when it is not there, is cut short, or has more than `most`."""
    offset, size = _index_now(archive).find(name)
    if size > most:
        raise OSError(errno.EFBIG, f"{size:,} bytes is above the cap of {most:,}")
    with archive.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(errno.EIO, "the archive ends in the middle of it")
    return data


def size_of(archive: Path, name: str) -> int:
    """Bytes. Raises `OSError` as `read_member` does."""
    return _index_now(archive).find(name)[1]


def _index_now(archive: Path) -> _Index:
    status = archive.stat()
    return _index(archive, status.st_size, status.st_mtime_ns)


@functools.lru_cache(_N_INDEXES)
def _index(archive: Path, _size: int, _changed: int) -> _Index:
    import numpy as np

    found: dict[bytes, tuple[int, int]] = {}
    try:
        with tarfile.open(archive, "r:") as tar:
            damage = _scan(tar, found)
            damage = damage or _find_rest(archive, tar.offset)
    except tarfile.TarError as error:
        raise UserError(
            f"{archive} is no plain tar archive ({error}); unpack it, or write it anew without "
            "compression: in a compressed one no single image can be looked at"
        ) from None
    if damage:
        told = f"{archive} is damaged behind {len(found):,} of its files ({damage})"
        warnings.warn(f"{told}: what follows is not read", Notice, stacklevel=2)
    names = sorted(found)
    places = np.array([found[name] for name in names], np.int64).reshape(-1, 2)
    return _Index(np.array(names, np.bytes_), places[:, 0], places[:, 1])


def _scan(tar: tarfile.TarFile, found: dict[bytes, tuple[int, int]]) -> str:
    """Take in its images and classes; what stopped that comes back, "" for the archive's end."""
    try:
        for member in tar:
            if member.name.lower().endswith((*IMAGE_SUFFIXES, CLASS_SUFFIX)):
                name = os.fsencode(str(PurePosixPath(member.name.lstrip("/"))))
                plain = member.isreg() and not member.issparse()
                found[name] = (member.offset_data if plain else _NO_FILE, member.size)
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all
    except (tarfile.TarError, OSError, ValueError) as error:
        return " ".join(str(error).split())[:100]
    return ""


def _find_rest(archive: Path, end: int) -> str:
    """What lies behind the last member: nothing but zeros in a whole archive."""
    with archive.open("rb") as file:
        file.seek(end)
        while block := file.read(_BLOCK):
            if block.strip(b"\0"):
                return "a header that cannot be read"
    return ""


def _read_classes(archive: Path, index: _Index, names: list[str]) -> dict[str, str]:
    """By key: what the `.cls` files say."""
    classes: dict[str, str] = {}
    with archive.open("rb") as file:
        for name, offset in zip(names, index.offsets.tolist(), strict=True):
            if name.lower().endswith(CLASS_SUFFIX) and offset != _NO_FILE:
                file.seek(offset)
                size = index.find(name)[1]
                text = file.read(min(size, _MOST_CLASS)).decode("utf-8", "replace")
                classes[_key(name)] = " ".join(text.split())
    return classes


def _key(name: str) -> str:
    """What the files that belong together share: the name up to the first dot behind the folder."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]
