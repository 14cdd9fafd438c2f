"""Sums over the calls of a ledger, by stage: the first word of what a call was about."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import NamedTuple

from sae.core.errors import UserError


class Spent(NamedTuple):
    """What one stage has cost so far, USD."""

    usd: float
    """Billed, as far as it is known."""
    n_unknown: int
    """Answers for which nobody said what they cost."""
    risked: float
    """Worst case of requests without a known outcome: they may have been billed."""


class Billed(NamedTuple):
    """Sums over answers of one model in one stage, for estimating the next ones."""

    n: int
    """Answers for which both counts of prompt tokens are known; the sums are over these."""
    prompt_tokens: int
    estimated: float
    """Prompt tokens that had been expected."""
    completion_tokens: int
    usd: float
    """NaN when one of them has an unknown cost."""


COLUMNS = {
    "calls": {"key", "created", "request", "reply"},
    "risked": {"id", "key", "about", "usd", "known"},
    "notes": {"name", "value"},
}
"""Of each table."""


def require_ours(path: Path, calls: sqlite3.Connection) -> None:
    """Raise `UserError` where the database has other tables or columns than a ledger."""
    tables = [name for (name,) in calls.execute("SELECT name FROM sqlite_master WHERE sql != ''")]
    for table in tables:
        found = {column[1] for column in calls.execute(f'PRAGMA table_info("{table}")')}
        if COLUMNS.get(table) != found:
            raise UserError(f"{path} is no ledger of ours: it has the table {table!r} of {found}")


def has_table(calls: sqlite3.Connection, name: str) -> bool:
    """Whether it is there; ledgers of the first version have `calls` alone."""
    query = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return calls.execute(query, (name,)).fetchone() is not None


def of_reply(field: str) -> str:
    """SQL for a field of a stored reply."""
    return f"json_extract(reply, '$.{field}')"


ABOUT = f"coalesce({of_reply('about')}, '')"
"""SQL for what a call was about; ledgers of the first version do not say."""
ASKED = "json_extract(request, '$.model')"
"""SQL for the model that was asked."""
PROVIDER = f"coalesce({of_reply('provider')}, '')"
"""SQL for who answered; "" when the server does not say."""


def first_word(about: str) -> str:
    """SQL for the stage in the column or expression `about`."""
    return f"substr({about}, 1, instr({about} || ' ', ' ') - 1)"


def spent_in(calls: sqlite3.Connection, stage: str) -> Spent:
    """What the calls of a stage have cost."""
    usd, n_unknown = calls.execute(
        f"SELECT TOTAL(usd), COUNT(*) - COUNT(usd) FROM (SELECT {of_reply('usd')} AS usd "
        f"FROM calls WHERE {first_word(ABOUT)} = ?)",
        (stage,),
    ).fetchone()
    lost, risked = calls.execute(
        "SELECT TOTAL(usd * known), TOTAL(usd * (1 - known)) FROM risked "
        f"WHERE {first_word('about')} = ?",
        (stage,),
    ).fetchone()
    return Spent(usd + lost, n_unknown, risked)


def billed_in(calls: sqlite3.Connection, model: str, stage: str) -> Billed:
    """What `model`, as it was asked for, has used in a stage."""
    fields = ("prompt_tokens", "estimated", "completion_tokens", "usd")
    columns = ", ".join(f"{of_reply(name)} AS {name}" for name in fields)
    n, n_known, prompt, estimated, completion, usd = calls.execute(
        "SELECT COUNT(*), COUNT(usd), TOTAL(prompt_tokens), TOTAL(estimated), "
        f"TOTAL(completion_tokens), TOTAL(usd) FROM (SELECT {columns} FROM calls "
        f"WHERE {first_word(ABOUT)} = ? AND {ASKED} = ?) "
        "WHERE prompt_tokens > 0 AND estimated > 0",
        (stage, model),
    ).fetchone()
    return Billed(n, int(prompt), estimated, int(completion), usd if n_known == n else math.nan)
