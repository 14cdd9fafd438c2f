"""What a disk has room for, and why it refuses -> one line for the user."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sae.core.errors import UserError

_AGAIN = "then run the same command"
_FULL = f"there is no room left; make room there, {_AGAIN}"
_WHY = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: f"your quota is used up; make room there, {_AGAIN}",
    errno.EFBIG: f"files may not get that large here (`ulimit -f`); raise the limit, {_AGAIN}",
    errno.EROFS: "the disk is read-only; name another place",
    errno.EACCES: f"permission denied; change its rights or name another place, {_AGAIN}",
    errno.EPERM: f"this is not permitted; change its rights or name another place, {_AGAIN}",
    errno.ENAMETOOLONG: "the name or path is too long; choose a shorter one",
    errno.ELOOP: "its links go round in a circle; mend them or name another place",
    errno.ENOTDIR: "a file stands where a folder is meant; name another place",
    errno.EISDIR: "a folder stands where a file is meant; name another place",
    errno.EEXIST: "something else is there, a file or a broken link; name another place",
    errno.ENOENT: "it is missing, or is a link to nothing",
    errno.ENOTEMPTY: "another process has just written there; look, and run the command again",
    errno.EBUSY: "it is in use, or a disk of its own; name a folder inside it",
    errno.EIO: "the disk gives an error; look after it, or name another place",
    errno.ESTALE: f"the network disk has gone; bring it back, {_AGAIN}",
    errno.EMFILE: f"too many files are open; raise `ulimit -n`, {_AGAIN}",
    errno.ENFILE: f"too many files are open on this machine; {_AGAIN}",
    errno.EINVAL: "such a name is not possible here; choose another",
    errno.EILSEQ: "such a name is not possible here; choose another",
}
"""What a user can mend, by the system's number for it."""
_NUMBER = re.compile(r"(?:os error|[Ee]rrno) (\d+)")


def refusal(error: Exception, path: Path | str = "") -> UserError | None:
    """What the system said of a file as one line; None where it is no such error.

    safetensors and Arrow tell the system's number in their text only.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _NUMBER.search(str(error))):
        number = int(found[1])
    if number not in _WHY or isinstance(error, ConnectionError):
        return None
    # What comes without a path may have been read.
    what = f"write {path}" if path else f"use {_named(error) or 'a file'}"
    return UserError(f"cannot {what}: {_WHY[number]}")


def require_room(folder: Path, n_bytes: int, largest: int = 0) -> None:
    """Raise `UserError` where `folder`, there or not, cannot take so many bytes, or a file of
    `largest` bytes.
    """
    free = free_bytes(folder)
    limit = _most_bytes()
    if n_bytes > free:
        raise UserError(
            f"no room in {folder}: it needs {weigh(n_bytes)}, {weigh(free)} are free; "
            f"make room there, {_AGAIN}"
        )
    if (largest or n_bytes) > limit:
        raise UserError(
            f"no room in {folder}: a file needs {weigh(largest or n_bytes)}, and "
            f"{weigh(limit)} are allowed (`ulimit -f`); raise the limit, {_AGAIN}"
        )


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, there or not."""
    with errors_of(folder):
        return shutil.disk_usage(nearest(folder)).free


def is_same_disk(one: Path, other: Path) -> bool:
    """Whether two folders, there or not, take their room from one disk."""
    with errors_of(one):
        return nearest(one).stat().st_dev == nearest(other).stat().st_dev


def require_writable(file: Path, flag: str) -> None:
    """Raise `UserError` unless `file` can be written, so that no work is lost at its end."""
    with errors_of(file):
        if file.is_dir():
            raise UserError(f"{flag} {file} is a folder; name a file")
        if file.is_symlink() and not file.exists():
            raise UserError(f"{flag} {file} is a link to nothing; name another file")
        made = not file.parent.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        probe = file.with_name(f"{file.name}.part")
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)
            if made:
                file.parent.rmdir()


def nearest(folder: Path) -> Path:
    """It, or the first folder above it that is there."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _most_bytes() -> float:
    """Of one file, by the limit of this process."""
    try:
        import resource
    except ImportError:  # Windows has none
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def weigh(n_bytes: float) -> str:
    """So many bytes in words: "388.5 GB"."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:,.1f} GB"
    if n_bytes >= 1e5:
        return f"{n_bytes / 1e6:,.1f} MB"
    return f"{n_bytes / 1e3:,.1f} kB"


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn what the system, or a library that writes for us, says of `path` into one line."""
    try:
        yield
    except Exception as error:
        is_of_files = isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
        # Of another file that the block looks at it is not ours to speak.
        is_of_another = not f"{_named(error) or path}".startswith(str(path))
        found = refusal(error, path) if is_of_files and not is_of_another else None
        if found is None:
            raise
        raise found from None


def _named(error: Exception) -> str:
    """The file that an error is about, or nothing."""
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
