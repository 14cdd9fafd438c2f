"""One process at a time works on a run; the next one is told which process it is."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sae.core.errors import UserError


def hold(path: Path) -> sqlite3.Connection:
    """Hold SQLite's own write lock on the small file `path` until the connection is closed.

    The system lets go of it when we die. The pid is committed first, since readers are let through
    while the lock is held. Raises `UserError` with that pid when another process holds it.
    """
    lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER)")
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("DELETE FROM holder")
        lock.execute("INSERT INTO holder VALUES (?)", (os.getpid(),))
        lock.execute("COMMIT")
        lock.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        message = _refusal(path, _holder(lock)) if busy else _unwritable(path, error)
        lock.close()
        raise UserError(message) from None
    except sqlite3.DatabaseError as error:
        lock.close()
        raise UserError(f"cannot use {path}: {error}; delete that file") from None
    return lock


def _refusal(path: Path, holder: str) -> str:
    return f"process {holder} is working on the run {path.parent}; wait for it or stop it"


def _unwritable(path: Path, error: sqlite3.Error) -> str:
    return f"cannot write {path} ({error}); make room for it there, then run the same command"


def _holder(lock: sqlite3.Connection) -> str:
    try:
        row = lock.execute("SELECT pid FROM holder").fetchone()
    except sqlite3.OperationalError:
        row = None  # it was just being written
    return "?" if row is None else str(row[0])
