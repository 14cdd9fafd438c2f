"""What was paid for, read from a run's ledger without its lock: also while a run is at work."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from interp.llm.ledger.queries import (
    ABOUT,
    ASKED,
    PROVIDER,
    Billed,
    billed_in,
    first_word,
    has_table,
    of_reply,
    require_ours,
)
from sae.core.errors import UserError
from sae.core.files import FORMAT, replacing


class Row(NamedTuple):
    """One answered call."""

    key: str
    created: str
    """UTC, ISO 8601, to the second."""
    about: str
    """As "explain 17"; "" in ledgers of the first version."""
    model: str
    """That was asked."""
    provider: str
    """That answered; "" when the server does not say."""
    prompt_tokens: int
    completion_tokens: int
    usd: float
    """NaN when nobody said."""
    finish_reason: str


class Total(NamedTuple):
    """Sums over the calls of one stage, model and provider; all three are "" for all calls."""

    stage: str
    model: str
    provider: str
    n_calls: int
    n_latents: int
    """Different latents that the calls were about."""
    n_unknown: int
    """Calls of unknown cost: not in `usd`."""
    prompt_tokens: int
    completion_tokens: int
    usd: float
    first: str
    """When the first and the last answer came: as `Row.created`, "" without any."""
    last: str

    @property
    def usd_per_latent(self) -> float:
        """NaN when there is no latent, or the cost of a call is unknown."""
        return self.usd / self.n_latents if self.n_latents and not self.n_unknown else math.nan


class Unanswered(NamedTuple):
    """Requests of one stage that brought no answer to keep."""

    stage: str
    n: int
    usd: float
    """Billed all the same."""
    risked: float
    """Worst case of those whose outcome is not known: cut connections, a killed process."""


def rows(path: Path, model: str | None = None, stage: str | None = None) -> Iterator[Row]:
    """The calls of a ledger, oldest first; only those to `model` and of `stage` when given."""
    with open_read_only(path) as calls:
        found = calls.execute(
            f"SELECT {_COLUMNS} FROM calls WHERE (?1 IS NULL OR {ASKED} = ?1) "
            f"AND (?2 IS NULL OR {first_word(ABOUT)} = ?2) ORDER BY created, key",
            (model, stage),
        )
        for *fields, usd, finish_reason in found:
            row = Row._make((*fields, math.nan if usd is None else float(usd), finish_reason))
            texts = (*row[:5], finish_reason)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"the call {row.key!r:.20} has a field of another type")
            yield row


def totals(path: Path) -> list[Total]:
    """Sums by stage, model and provider."""
    with open_read_only(path) as calls:
        return _sums(calls, "stage, model, provider", "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")


def overall(path: Path) -> Total:
    """The sum over all calls. `n_latents` counts a latent once, whatever was asked about it."""
    with open_read_only(path) as calls:
        return _sums(calls, "'', '', ''", "")[0]


def sum_unanswered(path: Path) -> list[Unanswered]:
    """What was, or may have been, billed without an answer, by stage."""
    with open_read_only(path) as calls:
        if not has_table(calls, "risked"):
            return []  # a ledger of the first version
        found = calls.execute(
            f"SELECT {first_word('about')}, COUNT(*), TOTAL(usd * known), "
            "TOTAL(usd * (1 - known)) FROM risked GROUP BY 1 ORDER BY 1"
        )
        return [Unanswered(*row) for row in found]


def read_billed(path: Path, model: str, stage: str) -> Billed:
    """`Ledger.billed` without the run's lock; nothing where no model was asked yet."""
    if not path.exists():
        return Billed(0, 0, 0.0, 0, 0.0)
    with open_read_only(path) as calls:
        return billed_in(calls, model, stage)


def read_note(path: Path, name: str) -> str | None:
    """`Ledger.note` without the run's lock."""
    if not path.exists():
        return None
    with open_read_only(path) as calls:
        if not has_table(calls, "notes"):
            return None  # a ledger of the first version
        row = calls.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def export(path: Path, out: Path) -> int:
    """Write all calls as JSON Lines, oldest first, and return how many.

    One object a call: key, created, about, request (images by their hash) and reply.
    """
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"--export {out} is the ledger itself; choose another file")
    with (
        open_read_only(path) as calls,
        replacing(out) as part,
        part.open("w", encoding="utf-8") as file,
    ):
        keys = calls.execute("SELECT key FROM calls ORDER BY created, key").fetchall()
        for key in keys:
            # One by one: sorting whole calls would write a copy of them all to a temporary file,
            # and one long read would keep a run at work from clearing its write-ahead log.
            row = calls.execute(
                "SELECT key, created, request, reply FROM calls WHERE key = ?", key
            ).fetchone()
            file.write(_line(*row) + "\n")
    return len(keys)


def read_calls(path: Path, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By key, of those that the ledger has: what was asked and what was answered, for people.

    created, model (that was asked), provider, usd (None: not known), prompt (its texts one after
    the other, an image as "[image 0123abcd]") and reply. Empty where there is no ledger.
    """
    found: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return found
    columns = f"created, {ASKED}, {PROVIDER}, {of_reply('usd')}, request, {of_reply('text')}"
    with open_read_only(path) as calls:
        for key in keys:
            row = calls.execute(f"SELECT {columns} FROM calls WHERE key = ?", (key,)).fetchone()
            if row is not None:
                created, model, provider, usd, request, reply = row
                texts = _texts_of(json.loads(request)["messages"])
                about = {"created": created, "model": model, "provider": provider, "usd": usd}
                found[key] = about | {"prompt": texts, "reply": reply or ""}
    return found


def _texts_of(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a request's messages say, part by part."""
    parts: list[str] = []
    for message in messages:
        content = message["content"]
        parts += [content] if isinstance(content, str) else map(_in_words, content)
    return parts


def _in_words(part: Mapping[str, Any]) -> str:
    return str(part["text"] if part["type"] == "text" else f"[image {part['sha256'][:8]}]")


_COUNTED = ("prompt_tokens", "completion_tokens", "usd", "finish_reason")
_COLUMNS = ", ".join(["key", "created", ABOUT, ASKED, PROVIDER, *map(of_reply, _COUNTED)])


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger, read only. Raises `UserError` when it is missing or cannot be read."""
    if not path.exists():
        raise UserError(f"{path} does not exist: no model was asked in this run yet")
    try:
        with closing(_connect(path)) as calls:
            yield calls
    except (sqlite3.Error, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _connect(path: Path) -> sqlite3.Connection:
    address = path.resolve().as_uri()
    calls = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None)
    try:
        (found,) = calls.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        calls.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        # Nobody is at work, and SQLite cannot make its side files in a folder that is read-only.
        calls = sqlite3.connect(f"{address}?immutable=1", uri=True, isolation_level=None)
        (found,) = calls.execute("PRAGMA user_version").fetchone()
    try:
        if found != FORMAT:
            raise UserError(f"{path} has format {found}; this version reads format {FORMAT}")
        require_ours(path, calls)
    except BaseException:
        calls.close()
        raise
    return calls


def _sums(calls: sqlite3.Connection, names: str, grouping: str) -> list[Total]:
    stage = first_word(ABOUT)
    found = calls.execute(
        f"SELECT {names}, COUNT(*), COUNT(DISTINCT latent), COUNT(*) - COUNT(usd), "
        "coalesce(SUM(prompt), 0), coalesce(SUM(completion), 0), TOTAL(usd), "
        "coalesce(MIN(created), ''), coalesce(MAX(created), '') FROM ("
        f"SELECT created, {stage} AS stage, {ASKED} AS model, "
        f"{PROVIDER} AS provider, "
        f"nullif(substr({ABOUT}, length({stage}) + 2), '') AS latent, "
        f"{of_reply('prompt_tokens')} AS prompt, {of_reply('completion_tokens')} AS completion, "
        f"{of_reply('usd')} AS usd FROM calls) {grouping}"
    )
    return [Total(*row) for row in found]


def _line(key: str, created: str, request: str, reply: str) -> str:
    answer: dict[str, Any] = json.loads(reply)
    call = {
        "key": key,
        "created": created,
        "about": answer.get("about", ""),
        "request": json.loads(request),
        "reply": answer,
    }
    return json.dumps(call, ensure_ascii=False, allow_nan=False)
