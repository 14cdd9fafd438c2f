import asyncio
import dataclasses
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.ledger import Ledger, key_of, request_of
from interp.questions import Picture, Question, Reply, Usage
from sae.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
QUESTION = Question(
    system="look",
    parts=("what is it", Picture(b"PNGDATA", "image/png")),
    schema={"type": "object", "required": ["A"]},
    schema_name="detect",
    max_tokens=100,
    temperature=0.0,
    prompt="f" * 64,
)


def request(question=QUESTION, model="m", base_url="http://x/v1", **parameters):
    return request_of(question, model, base_url, parameters)


def reply(key="k", text="{}", usd=0.5):
    return Reply(text, "m", "Somewhere", Usage(10, 2, usd), "stop", key)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def test_a_stored_reply_comes_back_whole(ledger):
    ledger.put("k", request(), reply())
    assert ledger.get("k") == reply()
    assert ledger.get("other") is None
    assert len(ledger) == 1


def test_an_unknown_cost_stays_unknown(ledger):
    ledger.put("k", request(), reply(usd=math.nan))
    assert math.isnan(ledger.get("k").usage.usd)


def test_images_are_stored_by_hash_only_but_the_text_in_full(ledger):
    ledger.put("k", request(), reply())
    stored = ledger.path.read_bytes() + Path(f"{ledger.path}-wal").read_bytes()
    assert b"PNGDATA" not in stored
    assert b"what is it" in stored


CHANGES = [
    {"system": "look!"},
    {"parts": ("what is it!", Picture(b"PNGDATA", "image/png"))},
    {"parts": ("what is it", Picture(b"PNGDATa", "image/png"))},
    {"parts": (Picture(b"PNGDATA", "image/png"), "what is it")},
    {"schema": {"type": "object", "required": ["B"]}},
    {"schema": None},
    {"max_tokens": 101},
    {"temperature": 0.1},
    {"prompt": "e" * 64},
    {"attempt": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_any_change_of_a_question_changes_the_key(change):
    changed = dataclasses.replace(QUESTION, **change)
    assert key_of(request(changed)) != key_of(request())


def test_model_address_and_parameters_change_the_key():
    keys = {
        key_of(request()),
        key_of(request(model="n")),
        key_of(request(base_url="http://y/v1")),
        key_of(request(reasoning="low")),
    }
    assert len(keys) == 4


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=6))
def test_the_order_of_keys_does_not_change_the_key(values):
    backwards = dict(reversed(list(values.items())))
    assert key_of(values) == key_of(backwards)


def test_equal_questions_that_come_together_are_asked_once(ledger):
    asked = []

    async def ask():
        asked.append(1)
        await asyncio.sleep(0.01)
        return reply()

    async def main():
        return await asyncio.gather(*(ledger.once("k", request(), ask) for _ in range(8)))

    assert set(asyncio.run(main())) == {reply()}
    assert len(asked) == 1


def test_when_the_first_of_equal_questions_fails_the_next_one_tries(ledger):
    asked = []

    async def ask():
        asked.append(1)
        await asyncio.sleep(0.001)
        if len(asked) == 1:
            raise OSError("gone")
        return reply()

    async def main():
        both = (ledger.once("k", request(), ask) for _ in range(2))
        return await asyncio.gather(*both, return_exceptions=True)

    first, second = asyncio.run(main())
    assert isinstance(first, OSError)
    assert second == reply()


def test_the_reply_is_durable_before_anybody_sees_it(ledger):
    async def ask():
        return reply()

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
from interp.ledger import Ledger
from interp.questions import Reply, Usage
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
    with pytest.raises(UserError, match="free some space"):
        ledger.put("k", request(), long)
    assert ledger.get("k") is None
    assert ledger._calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)
