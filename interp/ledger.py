"""Every reply is durable before it is used, so what is paid for is never paid for twice.

`calls.sqlite` holds one row per answered question: the request's text with images by their hash,
and the raw reply. Unusable answers (prose, refusals, cut ones) are answers too; transport errors
are not, since nothing was received.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from interp.questions import Picture, Question, Reply, Usage
from sae.errors import UserError
from sae.files import FORMAT


def request_of(
    question: Question, model: str, base_url: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """All of a request that can change its answer, with images by hash: plain JSON values."""
    parts = [_plain(part) for part in question.parts]
    return {
        "model": model,
        "base_url": base_url,
        "messages": [
            {"role": "system", "content": question.system},
            {"role": "user", "content": parts},
        ],
        "schema": question.schema,
        "schema_name": question.schema_name,
        "parameters": {
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            **parameters,
        },
        "prompt": question.prompt,
        "attempt": question.attempt,
    }


def key_of(request: Mapping[str, Any]) -> str:
    """sha256 (64 hex digits) of the canonical JSON: the order of keys does not matter."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """The calls of one run. One process at a time may hold it; a second gets a `UserError`."""

    def __init__(self, path: Path) -> None:
        """Open or create `path` (calls.sqlite) and lock the run until `close`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path.with_suffix(".lock"))
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._thread = threading.Lock()
        try:
            self._calls = _open(path)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and of the run."""
        self._calls.close()
        self._lock.close()

    def get(self, key: str) -> Reply | None:
        """The stored reply of a question, or None when it was never answered."""
        with self._thread:
            row = self._calls.execute("SELECT reply FROM calls WHERE key = ?", (key,)).fetchone()
        return None if row is None else _reply(key, json.loads(row[0]))

    def put(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        """Store a reply; when this returns it survives kill -9 and a power cut."""
        row = (
            key,
            datetime.now(UTC).isoformat(timespec="seconds"),
            json.dumps(request, ensure_ascii=False, allow_nan=False),
            json.dumps(_stored(reply), ensure_ascii=False, allow_nan=False),
        )
        try:
            with self._thread, self._calls:
                self._calls.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"cannot write {self.path} ({error}); free some space, then run the same command"
            ) from None

    async def once(
        self, key: str, request: Mapping[str, Any], ask: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        """The stored reply, or `ask` for it and store it before anybody sees it.

        Equal questions that come together are asked once; when that fails the next one tries.
        """
        lock = self._asking.setdefault(key, asyncio.Lock())
        async with lock:
            known = self.get(key)
            if known is not None:
                return known
            reply = await ask()
            self.put(key, request, reply)
            return reply

    def __len__(self) -> int:
        """Answers held."""
        with self._thread:
            (count,) = self._calls.execute("SELECT COUNT(*) FROM calls").fetchone()
        return int(count)


def _plain(part: str | Picture) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "media_type": part.media_type, "sha256": part.sha256}


def _open(path: Path) -> sqlite3.Connection:
    # Connections are used from one event loop at a time, guarded by a lock.
    calls = sqlite3.connect(path, check_same_thread=False)
    try:
        calls.execute("PRAGMA journal_mode=WAL")
        # NORMAL: a commit is in the system's hands at once and outlives the process, killed or not.
        # FULL also waits for the disk (20 ms measured), while answers that are there wait unstored:
        # a kill in that time loses more than a power cut does.
        calls.execute("PRAGMA synchronous=NORMAL")
        (found,) = calls.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            raise UserError(f"{path} has format {found}; this version reads format {FORMAT}")
        with calls:
            calls.execute(
                "CREATE TABLE IF NOT EXISTS calls "
                "(key TEXT PRIMARY KEY, created TEXT, request TEXT, reply TEXT) WITHOUT ROWID"
            )
            calls.execute(f"PRAGMA user_version={FORMAT}")
    except sqlite3.DatabaseError as error:
        calls.close()
        raise UserError(f"cannot use {path}: {error}; move it away to start afresh") from None
    except UserError:
        calls.close()
        raise
    return calls


def _lock(path: Path) -> sqlite3.Connection:
    """Hold SQLite's own write lock on a small file: the system lets go of it when we die.

    The pid is committed first, since readers are let through while the lock is held.
    """
    lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER)")
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("DELETE FROM holder")
        lock.execute("INSERT INTO holder VALUES (?)", (os.getpid(),))
        lock.execute("COMMIT")
        lock.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        holder = _holder(lock)
        lock.close()
        raise UserError(
            f"process {holder} is working on the run {path.parent}; wait for it or stop it"
        ) from None
    except sqlite3.DatabaseError as error:
        lock.close()
        raise UserError(f"cannot use {path}: {error}; delete that file") from None
    return lock


def _holder(lock: sqlite3.Connection) -> str:
    try:
        row = lock.execute("SELECT pid FROM holder").fetchone()
    except sqlite3.OperationalError:
        row = None  # it was just being written
    return "?" if row is None else str(row[0])


def _stored(reply: Reply) -> dict[str, Any]:
    usd = reply.usage.usd
    return {
        "text": reply.text,
        "model": reply.model,
        "provider": reply.provider,
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "usd": None if math.isnan(usd) else usd,
        "finish_reason": reply.finish_reason,
    }


def _reply(key: str, stored: Mapping[str, Any]) -> Reply:
    usd = math.nan if stored["usd"] is None else float(stored["usd"])
    return Reply(
        text=stored["text"],
        model=stored["model"],
        provider=stored["provider"],
        usage=Usage(stored["prompt_tokens"], stored["completion_tokens"], usd),
        finish_reason=stored["finish_reason"],
        key=key,
    )
