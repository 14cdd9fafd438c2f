"""What a ledger keeps: replies, what was risked, what was billed, notes."""

import asyncio
import dataclasses
import json
import math
import sqlite3
from pathlib import Path

import pytest

from interp.llm.ledger.ledger import Ledger, Paid, key_of
from interp.llm.ledger.queries import Billed, Spent
from tests.support.interp.ledgers import QUESTION, reply, request


def old_ledger(path):
    """With the one table, and the one answer, of the first version."""
    fields = {"text": "{}", "model": "m", "provider": "Somewhere", "finish_reason": "stop"}
    stored = json.dumps({**fields, "prompt_tokens": 10, "completion_tokens": 2, "usd": 1.0})
    row = ("old", "2026-01-02T03:04:05+00:00", json.dumps(request()), stored)
    calls = sqlite3.connect(path)
    with calls:
        columns = "key TEXT PRIMARY KEY, created TEXT, request TEXT, reply TEXT"
        calls.execute(f"CREATE TABLE calls ({columns}) WITHOUT ROWID")
        calls.execute("PRAGMA user_version=1")
        calls.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", row)
    calls.close()


def test_a_stored_reply_comes_back_whole(ledger):
    ledger.put("k", request(), reply())
    assert ledger.get("k") == reply(stored=True)
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


def test_what_a_question_is_about_is_kept_but_is_no_part_of_its_key(ledger):
    named = dataclasses.replace(QUESTION, about="explain 17")
    assert key_of(request(named)) == key_of(request())
    ledger.put("k", request(named), reply(), named.about, estimated=9.5)
    ((stored,),) = ledger._calls.execute("SELECT reply FROM calls").fetchall()
    assert json.loads(stored)["about"] == "explain 17"
    assert json.loads(stored)["estimated"] == 9.5


def test_equal_questions_that_come_together_are_asked_once(ledger):
    asked = []

    async def ask():
        asked.append(1)
        await asyncio.sleep(0.01)
        return Paid(reply())

    async def main():
        return await asyncio.gather(*(ledger.once("k", request(), ask) for _ in range(8)))

    first, *others = asyncio.run(main())
    assert first == reply()
    assert others == [reply(stored=True)] * 7
    assert len(asked) == 1


def test_when_the_first_of_equal_questions_fails_the_next_one_tries(ledger):
    asked = []

    async def ask():
        asked.append(1)
        await asyncio.sleep(0.001)
        if len(asked) == 1:
            raise OSError("gone")
        return Paid(reply())

    async def main():
        both = (ledger.once("k", request(), ask) for _ in range(2))
        return await asyncio.gather(*both, return_exceptions=True)

    first, second = asyncio.run(main())
    assert isinstance(first, OSError)
    assert second == reply()


def test_what_was_risked_counts_until_it_is_settled(ledger):
    first = ledger.risk("a", "explain 3", 0.5)
    second = ledger.risk("b", "explain 4", 0.25)
    ledger.risk("c", "score 3", 4.0)
    assert ledger.spent("explain") == Spent(0.0, 0, 0.75)
    ledger.settle(first)
    assert ledger.spent("explain") == Spent(0.0, 0, 0.25)
    ledger.settle(second, billed=0.125)
    assert ledger.spent("explain") == Spent(0.125, 0, 0.0)
    assert ledger.spent("score") == Spent(0.0, 0, 4.0)


def test_an_answer_and_what_it_risked_are_settled_in_one_transaction(ledger):
    async def ask():
        return Paid(reply(usd=0.125), ledger.risk("k", "explain 3", 0.5))

    statements = []

    async def main():
        ledger._calls.set_trace_callback(statements.append)
        return await ledger.once("k", request(), ask, "explain 3", 9.0)

    assert asyncio.run(main()) == reply(usd=0.125)
    assert ledger.spent("explain") == Spent(0.125, 0, 0.0)
    assert [s.split()[0] for s in statements if s.split()[0] in ("COMMIT", "INSERT", "DELETE")] == [
        *("INSERT", "COMMIT"),
        *("INSERT", "DELETE", "COMMIT"),
    ]


def test_what_a_failed_question_risked_stays_on_record_for_the_next_process(tmp_path):
    async def ask():
        ledger.risk("k", "explain 3", 0.5)
        raise OSError("gone")

    with Ledger(tmp_path / "calls.sqlite") as ledger, pytest.raises(OSError, match="gone"):
        asyncio.run(ledger.once("k", request(), ask, "explain 3"))
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        assert ledger.spent("explain") == Spent(0.0, 0, 0.5)


def test_a_stage_is_the_whole_first_word(ledger):
    abouts = ["score 17", "score-control 17", "scored", "explain 17", "preflight", ""]
    for n, about in enumerate(abouts):
        ledger.put(f"k{n}", request(), reply(usd=2.0**n), about)
    ledger.put("unknown", request(), reply(usd=math.nan), "score 18")
    assert ledger.spent("score") == Spent(1.0, 1, 0.0)
    assert ledger.spent("score-control") == Spent(2.0, 0, 0.0)
    assert ledger.spent("preflight") == Spent(16.0, 0, 0.0)
    assert ledger.spent("sco") == Spent(0.0, 0, 0.0)


def test_what_was_billed_is_summed_over_answers_whose_tokens_were_expected_and_told(ledger):
    ledger.put("a", request(), reply(usd=0.5, tokens=(100, 10)), "explain 1", 80.0)
    ledger.put("b", request(), reply(usd=0.25, tokens=(60, 20)), "explain 2", 40.0)
    ledger.put("no estimate", request(), reply(tokens=(7, 7)), "explain 3")
    ledger.put("not told", request(), reply(tokens=(0, 0)), "explain 4", 50.0)
    ledger.put("other stage", request(), reply(tokens=(7, 7)), "score 1", 50.0)
    ledger.put("other model", request(model="n"), reply(tokens=(7, 7)), "explain 1", 50.0)
    assert ledger.billed("m", "explain") == Billed(2, 160, 120.0, 30, 0.75)
    assert ledger.billed("nobody", "explain") == Billed(0, 0, 0.0, 0, 0.0)
    ledger.put("c", request(), reply(usd=math.nan, tokens=(40, 0)), "explain 5", 40.0)
    assert ledger.billed("m", "explain")[:4] == (3, 200, 160.0, 30)
    assert math.isnan(ledger.billed("m", "explain").usd)


def test_notes_outlive_the_process_and_the_last_one_counts(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        assert ledger.note("form m") is None
        ledger.set_note("form m", "strict")
        ledger.set_note("form m", "object")
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        assert ledger.note("form m") == "object"


def test_a_ledger_of_the_last_version_goes_on_working(tmp_path):
    path = tmp_path / "calls.sqlite"
    old_ledger(path)
    with Ledger(path) as ledger:
        assert ledger.get("old") == reply("old", usd=1.0, stored=True)
        assert ledger.spent("explain") == Spent(0.0, 0, 0.0)
        ledger.settle(ledger.risk("k", "explain 1", 1.0))
        ledger.put("k", request(), reply(), "explain 1")
        assert ledger.spent("explain") == Spent(0.5, 0, 0.0)
