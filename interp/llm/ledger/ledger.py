"""Every reply is durable before it is used, so what is paid for is never paid for twice.

`calls.sqlite` holds one row per answered question: the request's text with images by their hash,
and the raw reply. Unusable answers (prose, refusals, cut ones) are answers too; transport errors
are not, since nothing was received: what those may have cost stands in `risked`.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from interp.llm.ledger.merge import TABLES, Taken, read_batches
from interp.llm.ledger.queries import Billed, Spent, billed_in, require_ours, spent_in
from interp.llm.types import Picture, Question, Reply, Usage
from sae.core.errors import UserError
from sae.core.files import FORMAT, sha256_hex
from sae.core.lock import hold

_TABLES = (
    "calls (key TEXT PRIMARY KEY, created TEXT, request TEXT, reply TEXT) WITHOUT ROWID",
    # known: 1 when usd is what an unanswered request did cost, 0 when it may have cost as much
    "risked (id INTEGER PRIMARY KEY, key TEXT, about TEXT, usd REAL, known INTEGER DEFAULT 0)",
    "notes (name TEXT PRIMARY KEY, value TEXT)",
)


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
    return sha256_hex(text.encode())


class Paid(NamedTuple):
    """An answer that just came in, with the note of what it might have cost."""

    reply: Reply
    risk: int | None = None
    """From `Ledger.risk`; None where nothing was noted (no price is known)."""


class Ledger:
    """The calls of one run. One process at a time may hold it; a second gets a `UserError`."""

    def __init__(self, path: Path) -> None:
        """Open or create `path` (calls.sqlite) and lock the run until `close`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = hold(path.with_suffix(".lock"), f"the run {path.parent}")
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._thread = threading.Lock()
        try:
            self._calls = _open(path)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and of the run."""
        self._calls.close()
        self._lock.close()

    def get(self, key: str) -> Reply | None:
        """The stored reply of a question, or None when it was never answered."""
        row = self._row("SELECT reply FROM calls WHERE key = ?", key)
        try:
            return None if row is None else _reply(key, json.loads(row[0]))
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise _damaged(self.path, f"the reply to {key[:12]}: {error!r:.200}") from None

    def put(
        self,
        key: str,
        request: Mapping[str, Any],
        reply: Reply,
        about: str = "",
        estimated: float = 0.0,
        risk: int | None = None,
    ) -> None:
        """Store a reply; when this returns it survives kill -9.

        `about`: what it was asked for, as "explain 17"; `estimated`: prompt tokens that had been
        expected; `risk`: settled in the same transaction.
        """
        row = (
            key,
            datetime.now(UTC).isoformat(timespec="seconds"),
            json.dumps(request, ensure_ascii=False, allow_nan=False),
            json.dumps(_stored(reply, about, estimated), ensure_ascii=False, allow_nan=False),
        )
        with self._writing() as calls:
            calls.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?)", row)
            if risk is not None:
                calls.execute("DELETE FROM risked WHERE id = ?", (risk,))

    async def once(
        self,
        key: str,
        request: Mapping[str, Any],
        ask: Callable[[], Awaitable[Paid]],
        about: str = "",
        estimated: float = 0.0,
    ) -> Reply:
        """The stored reply, or `ask` for it and store it before anybody sees it.

        Equal questions that come together are asked once; when that fails the next one tries.
        """
        lock = self._asking.setdefault(key, asyncio.Lock())
        async with lock:
            known = self.get(key)
            if known is not None:
                return known
            paid = await ask()
            self.put(key, request, paid.reply, about, estimated, paid.risk)
            return paid.reply

    def risk(self, key: str, about: str, usd: float) -> int:
        """Note before a request is sent that it may cost `usd`; what is never settled counts."""
        number = (1 << 61) | secrets.randbits(61)  # of its own among all parts of a run
        with self._writing() as calls:
            row = (number, key, about, usd)
            calls.execute("INSERT INTO risked (id, key, about, usd) VALUES (?, ?, ?, ?)", row)
        return number

    def settle(self, risk: int, billed: float = 0.0) -> None:
        """A request ended without an answer to keep, and cost `billed` USD."""
        with self._writing() as calls:
            if billed == 0.0:
                calls.execute("DELETE FROM risked WHERE id = ?", (risk,))
                return
            calls.execute("UPDATE risked SET usd = ?, known = 1 WHERE id = ?", (billed, risk))

    def spent(self, stage: str) -> Spent:
        """What the calls of a stage have cost: the first word of their `about`."""
        with self._reading() as calls:
            return spent_in(calls, stage)

    def billed(self, model: str, stage: str) -> Billed:
        """What `model`, as it was asked for, has used in a stage."""
        with self._reading() as calls:
            return billed_in(calls, model, stage)

    def take_in(self, path: Path) -> Taken:
        """All that another ledger holds and this one does not: of a part of the same run. Killed in
        the middle, or done again, it takes in what is left.

        Raises `UserError` where that ledger cannot be read.
        """
        taken = Taken()
        for table, take in TABLES.items():
            for rows in read_batches(path, table):
                with self._writing() as calls:
                    taken = taken.plus(take(calls, rows))
        return taken

    def note(self, name: str) -> str | None:
        """What was learned before under this name."""
        row = self._row("SELECT value FROM notes WHERE name = ?", name)
        return None if row is None else str(row[0])

    def set_note(self, name: str, value: str) -> None:
        """Remember something of a model and its server for the next run."""
        with self._writing() as calls:
            calls.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    def __len__(self) -> int:
        """Answers held."""
        row = self._row("SELECT COUNT(*) FROM calls")
        assert row is not None
        return int(row[0])

    def _row(self, query: str, *values: str) -> tuple[Any, ...] | None:
        with self._reading() as calls:
            row: tuple[Any, ...] | None = calls.execute(query, values).fetchone()
        return row

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One look. Raises `UserError` where what is stored is damaged."""
        try:
            with self._thread:
                yield self._calls
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise _damaged(self.path, error) from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is kept, or nothing and a `UserError` says why."""
        try:
            with self._thread, self._calls:
                yield self._calls
        except sqlite3.OperationalError as error:
            raise _unwritable(self.path, error) from None


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
        require_ours(path, calls)
        with calls:
            for table in _TABLES:
                calls.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            calls.execute(f"PRAGMA user_version={FORMAT}")
    except sqlite3.OperationalError as error:
        calls.close()
        raise _unwritable(path, error) from None
    except sqlite3.DatabaseError as error:
        calls.close()
        raise _damaged(path, error) from None
    except UserError:
        calls.close()
        raise
    return calls


def _damaged(path: Path, said: object) -> UserError:
    return UserError(f"cannot use {path}: {said}; move it away to start afresh")


def _unwritable(path: Path, error: sqlite3.Error) -> UserError:
    return UserError(f"cannot write {path} ({error}); free some space, then run the same command")


def _stored(reply: Reply, about: str, estimated: float) -> dict[str, Any]:
    usd = reply.usage.usd
    return {
        "text": reply.text,
        "model": reply.model,
        "provider": reply.provider,
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "usd": None if math.isnan(usd) else usd,
        "finish_reason": reply.finish_reason,
        "thought_tokens": reply.n_thought,
        "room": reply.room,
        "about": about,
        "estimated": estimated,
    }


def _reply(key: str, stored: Mapping[str, Any]) -> Reply:
    usd = math.nan if stored["usd"] is None else float(stored["usd"])
    texts = (stored["text"], stored["model"], stored["provider"] or "", stored["finish_reason"])
    counts = (stored["prompt_tokens"], stored["completion_tokens"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is none")
    if usd < 0 or not all(isinstance(count, int) and 0 <= count < 1 << 53 for count in counts):
        raise ValueError("a count or cost is none")
    return Reply(
        text=stored["text"],
        model=stored["model"],
        provider=stored["provider"],
        usage=Usage(stored["prompt_tokens"], stored["completion_tokens"], usd),
        finish_reason=stored["finish_reason"],
        key=key,
        n_thought=stored.get("thought_tokens", 0),
        room=stored.get("room", 0),
        stored=True,
    )
