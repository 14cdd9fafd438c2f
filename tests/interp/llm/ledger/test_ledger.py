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
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from interp.llm.ledger.ledger import Ledger, Paid, key_of, request_of
from interp.llm.ledger.queries import Billed, Spent
from interp.llm.types import Picture, Question, Reply, Usage
from sae.core.errors import UserError
from tests.support.paths import ROOT

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


def reply(key="k", text="{}", usd=0.5, tokens=(10, 2), stored=False):
    return Reply(text, "m", "Somewhere", Usage(*tokens, usd), "stop", key, stored=stored)


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


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


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


PARTS = st.text(max_size=8) | st.builds(
    Picture, st.binary(min_size=1, max_size=8), st.sampled_from(["image/png", "image/jpeg"])
)
QUESTIONS = st.builds(
    Question,
    system=st.text(max_size=8),
    parts=st.lists(PARTS, min_size=1, max_size=4).map(tuple),
    schema=st.none() | st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
    schema_name=st.sampled_from(["explain", "detect"]),
    max_tokens=st.integers(1, 2000),
    temperature=st.floats(0, 2),
    prompt=st.text("0123456789abcdef", min_size=8, max_size=8),
    attempt=st.integers(0, 3),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=2000, deadline=None)
@given(QUESTIONS, st.data())
def test_any_single_change_of_a_generated_question_changes_the_key(first, data):
    field = data.draw(st.sampled_from(dataclasses.fields(Question)).map(lambda f: f.name))
    model, url, parameters = "m", "http://x/v1", {"reasoning": "low"}
    second = first
    if field == "parts":
        second = dataclasses.replace(first, parts=one_part_changed(first.parts, data))
    elif field == "about":  # the one field that is no part of the key: change what is around it
        change = data.draw(st.sampled_from(["model", "url", "value", "name", "more"]))
        model = "m" if change != "model" else "m2"
        url = "http://x/v1" if change != "url" else "http://x/v2"
        parameters = {
            "value": {"reasoning": "high"},
            "name": {"reasonin": "low"},
            "more": {"reasoning": "low", "provider": {"only": ["A"]}},
        }.get(change, parameters)
    else:
        other = getattr(data.draw(QUESTIONS), field)
        assume(other != getattr(first, field))
        second = dataclasses.replace(first, **{field: other})
    assert key_of(request_of(second, model, url, parameters)) != key_of(
        request_of(first, "m", "http://x/v1", {"reasoning": "low"})
    )


def one_part_changed(parts, data):
    """One part taken out, a letter added, a bit flipped, or the other type of image."""
    place = data.draw(st.integers(0, len(parts) - 1))
    part = parts[place]
    if data.draw(st.booleans()):
        return parts[:place] + parts[place + 1 :]
    if isinstance(part, str):
        return (*parts[:place], part + "x", *parts[place + 1 :])
    if data.draw(st.booleans()):
        other = {"image/png": "image/jpeg", "image/jpeg": "image/png"}[part.media_type]
        return (*parts[:place], Picture(part.data, other), *parts[place + 1 :])
    at, bit = data.draw(st.integers(0, len(part.data) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(part.data)
    flipped[at] ^= 1 << bit
    return (*parts[:place], Picture(bytes(flipped), part.media_type), *parts[place + 1 :])


@settings(max_examples=2000, deadline=None)
@given(QUESTIONS, st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
def test_the_order_of_keys_and_white_space_do_not_change_the_key(asked, parameters):
    made = request(asked, **{f"x{name}": value for name, value in parameters.items()})
    assert key_of(json.loads(json.dumps(backwards(made), indent=3))) == key_of(made)


def backwards(value):
    """The same JSON value with the keys of all its objects in the opposite order."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(each) for each in value] if isinstance(value, list) else value


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
    command = [sys.executable, "-c", FULL, str(path)]
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
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert f"UserError: cannot write {tmp_path / file}" in child.stderr
    with Ledger(path) as ledger:
        assert ledger.get("k")


def test_what_was_risked_counts_until_it_is_settled(ledger):
    first = ledger.risk("a", "explain 3", 0.5)
    second = ledger.risk("b", "explain 4", 0.25)
    ledger.risk("c", "score 3", 4.0)
    assert ledger.spent("explain") == Spent(0.0, 0, 0.75)
    ledger.settled(first)
    assert ledger.spent("explain") == Spent(0.0, 0, 0.25)
    ledger.settled(second, billed=0.125)
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
        ledger.settled(ledger.risk("k", "explain 1", 1.0))
        ledger.put("k", request(), reply(), "explain 1")
        assert ledger.spent("explain") == Spent(0.5, 0, 0.0)
