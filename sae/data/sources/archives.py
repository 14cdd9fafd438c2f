"""A path that leads into a file (`shards/000003.tar/000123.jpg`) -> the image in there.

What lies in an archive or a table has such a path everywhere: in a store, on a card, in an error.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from sae.data.sources import parquet, tar
from sae.data.sources.member import Member

TAR, PARQUET = ".tar", ".parquet"


class _Reader(Protocol):
    """What a kind of archive can do: a module of this folder."""

    def list_members(self, archive: Path, /) -> list[Member]: ...
    def read_member(self, archive: Path, name: str, most: int, /) -> bytes: ...
    def size_of(self, archive: Path, name: str, /) -> int: ...


_READERS: dict[str, _Reader] = {TAR: tar, PARQUET: parquet}


def is_archive(path: Path) -> bool:
    """Whether images may lie in the file, by its name and, of a table, its columns."""
    suffix = path.suffix.lower()
    return suffix == TAR or (suffix == PARQUET and parquet.image_column(path) is not None)


def list_members(archive: Path) -> list[Member]:
    """The images of an archive. Raises `UserError` when it cannot be read."""
    return _READERS[archive.suffix.lower()].list_members(archive)


def find_archive(path: Path) -> tuple[Path, str] | None:
    """The file in which an image lies, and the image's place there; None for any other path."""
    for parent in path.parents:
        if parent.is_file():
            return (parent, path.relative_to(parent).as_posix()) if _is_known(parent) else None
        if parent.is_dir():
            break
    return None


def read_member(archive: Path, name: str, most: int) -> bytes:
    """Its bytes. Raises `OSError` when it is not there, or has more than `most`."""
    if ".." in Path(name).parts:
        raise OSError(errno.EPERM, "its name leads out of the archive")
    return _READERS[archive.suffix.lower()].read_member(archive, name, most)


def size_of(path: Path) -> int:
    """Bytes of an image's file, or of the image in its archive; of a table's row, of the table.

    Raises `OSError` when it is not there.
    """
    found = find_archive(path)
    if found is None:
        return path.stat().st_size
    archive, name = found
    return _READERS[archive.suffix.lower()].size_of(archive, name)


def status_of(path: Path) -> os.stat_result:
    """Of the file, or of the archive that it lies in. Raises `OSError` when there is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        found = find_archive(path)
        if found is None:
            raise
        return found[0].stat()


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in _READERS
