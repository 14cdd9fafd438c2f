"""Whole runs under kills and faults. The long forms are marked slow; short ones run always."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from sae.core.files import sha256_hex
from tests.support.interp.explaining import run, start
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Fault, Request

MIX = {"429": 0.20, "500": 0.05, "hang": 0.05, "broken": 0.05, "error_200": 0.05, "html": 0.02}
"""Share of the questions whose first request meets each fault."""
WAIT = 1.0
"""Seconds of Retry-After."""


def pictures_of(request: Request) -> str:
    """Names a question by the hashes of what it shows."""
    urls = [
        part["image_url"]["url"]
        for part in request.body["messages"][-1]["content"]
        if part["type"] == "image_url"
    ]
    return " ".join(sha256_hex(url.encode()) for url in urls)


def stored_pictures(folder: Path) -> set[str]:
    """Questions that the ledger holds an answer to, as `pictures_of` names them."""
    path = folder / "calls.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return set()
        requests = [json.loads(row[0]) for row in ledger.execute("SELECT request FROM calls")]
    return {
        " ".join(p["sha256"] for p in request["messages"][1]["content"] if p["type"] == "image")
        for request in requests
    }


def names_by_hash(server: Loopback) -> dict[str, str]:
    """The server's name of a question -> the ledger's."""
    return {
        pictures_of(chat): " ".join(
            sha256_hex(_data(part)) for part in _image_parts(chat.body["messages"][-1]["content"])
        )
        for chat in server.chats
    }


def _image_parts(parts):
    return [part for part in parts if part["type"] == "image_url"]


def _data(part) -> bytes:
    import base64

    return base64.b64decode(part["image_url"]["url"].partition("base64,")[2])


def kill_and_resume(server: Loopback, folder: Path, n_latents: int, n_kills: int, seed: int) -> int:
    """Kill a run `n_kills` times at random moments, then let it end; returns repeated requests.

    A request counts as repeated when its answer was in the ledger at the time of an earlier kill.
    """
    rng = random.Random(seed)
    known: set[str] = set()
    repeated = 0
    for n_killed in range(n_kills + 1):
        server.requests.clear()
        with start(folder, server.base_url, n_latents) as child:
            if n_killed < n_kills:
                while child.poll() is None and not server.chats:
                    time.sleep(0.005)
                time.sleep(rng.uniform(0.0, 0.12))
                child.send_signal(signal.SIGKILL)
        by_hash = names_by_hash(server)
        repeated += sum(by_hash[pictures_of(chat)] in known for chat in server.chats)
        known = stored_pictures(folder)
        for line in (
            (folder / "explanations.jsonl").read_bytes().split(b"\n")[:-1]
            if (folder / "explanations.jsonl").exists()
            else []
        ):
            json.loads(line)
    return repeated


@pytest.mark.parametrize(
    ("n_latents", "n_kills"), [(16, 2), pytest.param(200, 50, marks=pytest.mark.slow)]
)
def test_kills_at_random_moments_repeat_no_paid_request_and_end_in_the_same_bytes(
    server, tmp_path, n_latents, n_kills
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, server.base_url, n_latents)
    server.latency = 0.05
    assert kill_and_resume(server, broken, n_latents, n_kills, seed=n_latents) == 0
    name = "explanations.jsonl"
    assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert len(stored_pictures(broken)) == n_latents
    left = {path.name for path in broken.iterdir()}
    assert not [file for file in left if file.endswith(".part")]


def first_time_only(seed: int):
    """A fault of the mix for a share of the questions, the first time each is asked."""
    seen: set[str] = set()

    def choose(request: Request) -> Fault | None:
        question = pictures_of(request)
        if question in seen:
            return None
        seen.add(question)
        draw = random.Random(f"{seed} {question}").random()
        for kind, share in MIX.items():
            if draw < share:
                return Fault(kind, WAIT if kind == "429" else None)
            draw -= share
        return None

    return choose


@pytest.mark.parametrize("n_latents", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_every_question_is_answered_through_a_mix_of_faults(server, tmp_path, n_latents):
    server.choose = first_time_only(seed=1)
    summary = run(tmp_path, server.base_url, n_latents, concurrency=16, timeout=8.0)
    assert (summary.n_labelled, summary.n_failed) == (n_latents, 0)
    met = Counter(chat.fault.kind for chat in server.chats if chat.fault is not None)
    assert len(server.chats) == n_latents + met.total()
    assert len(server.chats) <= 1.6 * n_latents
    assert set(met) == set(MIX) or n_latents < 100
    assert early_retries(server) == 0


def early_retries(server: Loopback) -> int:
    """Questions that were asked again before the Retry-After of their 429 was over."""
    turned_away: dict[str, float] = {}
    n_early = 0
    for chat in server.chats:
        question = pictures_of(chat)
        n_early += chat.at < turned_away.get(question, 0.0)
        if chat.fault is not None and chat.fault.retry_after:
            turned_away[question] = chat.at + chat.fault.retry_after
    return n_early
