"""One process at a time writes a folder or file; the next one is told which process it is.

Processes of one job may share it: the first one holds it, lets the others in, and they join.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO
from weakref import WeakSet

from sae.core.disk import refusal
from sae.core.errors import Notice, UserError

LOCK = ".lock"
"""The lock of a folder that is filled in place; of one that is replaced it is `<folder>.lock`."""
_LOOK = 0.05
"""Seconds between two tries, where the other process is waited for."""
_FAR = 1 << 30
"""Windows keeps others from reading a byte that is locked: this one holds nothing."""
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems of some clusters say, which know no locks."""
_open: WeakSet[IO[str]] = WeakSet()


class Lock:
    """Held until `close`; the system lets go of it when the process dies, however it dies."""

    def __init__(self, path: Path, file: IO[str], made: bool) -> None:
        self._path, self._file, self._made = path, file, made
        self._is_shared = False

    def share(self) -> None:
        """Let other processes `join`; nobody can `hold` it before all of these have closed it."""
        self._is_shared = True
        if not _take(self._file, self._path, alone=False):  # another one was in between
            raise _held(self._file, str(self._path))

    def close(self) -> None:
        """Let the next one in, and leave nothing behind."""
        if not self._is_shared or _take(self._file, self._path):  # the last one to go
            with suppress(OSError):  # Windows keeps a file that another process looks at
                self._path.unlink()
        self._file.close()
        if self._made:
            with suppress(OSError):  # the folder was made for the lock alone, and is empty
                self._path.parent.rmdir()


def hold(path: Path, what: str = "", wait: float = 0.0) -> Lock:
    """Hold the small file `path` for this process, which is told to others as `what`.

    Another one that holds it is waited for, `wait` seconds at most. Raises `UserError` with its
    pid when it does not let go, or when the file cannot be written.
    """
    until = time.monotonic() + wait
    what = what or str(path.parent if path.name == LOCK else path.with_suffix(""))
    try:
        made = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("a+", encoding="utf-8")
            if _take(file, path):
                if _is_at(path, file):
                    break
            elif time.monotonic() >= until:
                raise _held(file, what)
            file.close()
            time.sleep(_LOOK if wait else 0)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError as error:
        raise refusal(error, path) or error from None
    _open.add(file)
    return Lock(path, file, made)


def join(path: Path) -> Lock:
    """Hold what another process of the same job has let others `share`. Raises `UserError`."""
    try:
        file = path.open("a+", encoding="utf-8")
        if not _take(file, path, alone=False) or not _is_at(path, file):
            raise _held(file, str(path))
    except OSError as error:
        raise refusal(error, path) or error from None
    _open.add(file)
    lock = Lock(path, file, made=False)
    lock._is_shared = True
    return lock


def _take(file: IO[str], path: Path, alone: bool = True) -> bool:
    """Whether nobody else has it, or, not `alone`, all who have it share it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            if not alone:  # no locks that can be shared: the first process holds it for all
                return True

            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNKNOWN:
            warnings.warn(f"{path}: no locks here; start nothing twice", Notice, stacklevel=2)
            return True
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _is_at(path: Path, file: IO[str]) -> bool:
    """Whether the file is still the one of this name: who was done has just removed it."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(file.fileno()))


def _held(file: IO[str], what: str) -> UserError:
    with file:
        file.seek(0)
        pid = file.read(20).strip() or "?"  # it is just being written
    return UserError(f"process {pid} is working on {what}; wait for it or stop it")


def _let_go() -> None:
    """A forked child shares what is open: it must not hold the lock when we have died."""
    for file in list(_open):
        with suppress(OSError):
            os.close(file.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
