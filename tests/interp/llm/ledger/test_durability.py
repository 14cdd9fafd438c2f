"""A reply that was acknowledged stays: kill -9, full disks, broken files."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from interp.llm.ledger.ledger import Ledger, Paid
from interp.llm.ledger.queries import Spent
from sae.core.errors import UserError
from tests.support.interp.ledgers import reply, request
from tests.support.paths import ROOT


def test_the_reply_is_durable_before_anybody_sees_it(ledger):
    async def ask():
        return Paid(reply())

    async def main():
        await ledger.once("k", request(), ask)
        other = sqlite3.connect(ledger.path)
        rows = other.execute("SELECT key FROM calls").fetchall()
        other.close()
        return rows

    assert asyncio.run(main()) == [("k",)]
    assert ledger._calls.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL
    assert ledger._calls.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_second_ledger_on_the_same_run_is_refused_with_the_pid(ledger):
    with pytest.raises(UserError, match=f"process {os.getpid()} is working on the run"):
        Ledger(ledger.path)


def test_a_closed_ledger_lets_the_next_one_in(tmp_path):
    for _ in range(2):
        with Ledger(tmp_path / "calls.sqlite") as opened:
            opened.put("k", request(), reply())
    assert len(list(tmp_path.glob("calls.sqlite*"))) >= 1


CHILD = """
import sys, time
from pathlib import Path
from interp.llm.ledger.ledger import Ledger
from interp.llm.types import Reply, Usage
ledger = Ledger(Path(sys.argv[1]))
for n in range(10**6):
    ledger.put(f"k{n}", {}, Reply("{}", "m", None, Usage(1, 1, 0.0), "stop", f"k{n}"))
    print(n, flush=True)
"""


def test_acknowledged_replies_and_the_lock_survive_and_end_with_kill_9(tmp_path):
    path = tmp_path / "calls.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with child:
        for _ in range(5):
            acknowledged = int(child.stdout.readline())
        with pytest.raises(UserError, match=f"process {child.pid} is working"):
            Ledger(path)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
    acknowledged = max([acknowledged, *map(int, rest)])
    with Ledger(path) as ledger:
        assert all(ledger.get(f"k{n}") for n in range(acknowledged + 1))
        assert len(ledger) <= acknowledged + 2


def test_a_file_that_is_no_database_is_a_user_error_and_frees_the_lock(tmp_path):
    path = tmp_path / "calls.sqlite"
    path.write_text("this is no database at all" * 100)
    for _ in range(2):
        with pytest.raises(UserError, match=r"cannot use .*calls\.sqlite"):
            Ledger(path)


def test_an_unknown_format_is_refused_by_number(tmp_path):
    path = tmp_path / "calls.sqlite"
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version=9")
    other.close()
    with pytest.raises(UserError, match="has format 9; this version reads format 1"):
        Ledger(path)


def test_a_full_disk_is_a_user_error_and_nothing_is_broken(ledger):
    ledger._calls.execute("PRAGMA max_page_count=20")
    long = reply(text=json.dumps(["x" * 200_000]))
    risk = ledger.risk("k", "explain 3", 0.25)
    with pytest.raises(UserError, match="free some space"):
        ledger.put("k", request(), long, "explain 3", risk=risk)
    assert ledger.get("k") is None
    assert ledger.spent("explain") == Spent(0.0, 0, 0.25)
    assert ledger._calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FULL = """
import resource, sys
from pathlib import Path
from interp.llm.ledger.ledger import Ledger
from interp.llm.types import Reply, Usage
from sae.core.errors import UserError
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for n in range(10**6):
        risk = ledger.risk(f"k{n}", "explain 1", 0.5)
        answer = Reply("x" * 3000, "m", None, Usage(1, 1, 0.25), "stop", f"k{n}")
        ledger.put(f"k{n}", {}, answer, "explain 1", risk=risk)
        print(n, flush=True)
except UserError as error:
    print(error, flush=True)
"""


def test_when_the_disk_is_full_what_was_acknowledged_stays_and_the_run_goes_on(tmp_path):
    path = tmp_path / "calls.sqlite"
    command = [sys.executable, "-B", "-c", FULL, str(path)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    *numbers, message = child.stdout.splitlines()
    assert "calls.sqlite" in message
    assert "free some space, then run the same command" in message
    assert len(numbers) > 10
    with Ledger(path) as ledger:
        assert ledger._calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert all(ledger.get(f"k{n}") for n in numbers)
        assert len(ledger) == len(numbers)
        assert ledger.spent("explain").usd == 0.25 * len(numbers)
        ledger.put("more", {}, reply("more"))
        assert ledger.get("more")


@pytest.mark.parametrize(("limit", "file"), [(0, "calls.lock"), (20_000, "calls.sqlite")])
def test_a_full_disk_at_the_start_does_not_send_the_paid_answers_away(tmp_path, limit, file):
    path = tmp_path / "calls.sqlite"
    with Ledger(path) as ledger:
        ledger.put("k", request(), reply())
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from interp.llm.ledger.ledger import Ledger\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "Ledger(Path(sys.argv[1]))"
    )
    child = subprocess.run(
        [sys.executable, "-B", "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert f"UserError: cannot write {tmp_path / file}" in child.stderr
    with Ledger(path) as ledger:
        assert ledger.get("k")
