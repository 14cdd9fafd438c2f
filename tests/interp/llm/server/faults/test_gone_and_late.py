"""Servers that have gone, answer late, or have no list of models."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from interp.llm.cost.price import Price
from interp.llm.cost.tariff import Tariff
from interp.llm.server.client import ChatModel
from interp.llm.types import Question, Reply
from sae.core.errors import UserError
from sae.core.files import read_jsonl
from tests.support.commands import Walk, interp
from tests.support.servers.faulty import ask, config, question
from tests.support.servers.loopback_answers import Fault


@pytest.mark.parametrize("n_good", [1, 3])
def test_a_server_that_has_gone_ends_the_run_in_so_many_requests(server, ledger, n_good):
    server.queue(*[None] * n_good)
    server.always = Fault("500")

    async def main() -> list[Reply | BaseException]:
        quick = config(server, n_tries=1, concurrency=8, first_wait=0.001)
        async with ChatModel(quick, ledger) as model:
            asked = [question(f"red {n}") for n in range(200)]
            for one in asked[:n_good]:
                await model.ask(one)
            at_work = asyncio.Semaphore(8)

            async def one_of_eight(one: Question) -> Reply:
                async with at_work:
                    return await model.ask(one)

            rest = (one_of_eight(one) for one in asked[n_good:])
            return await asyncio.gather(*rest, return_exceptions=True)

    errors = asyncio.run(main())
    assert isinstance(errors[-1], UserError)
    assert "not answered by fake/vision" in str(errors[-1])
    assert len(server.chats) <= n_good + 2 * (32 + 8)  # two tries each


# Time and money


def test_a_question_that_timed_out_is_answered_later_and_may_have_been_billed(server, ledger):
    server.queue("hang", "hang")
    tariff = Tariff("fake/vision", Price(1e-6, 5e-6))
    worst = tariff.worst(question())

    async def main() -> Reply:
        patient = config(server, timeout=0.3, deadline=20)
        async with ChatModel(patient, ledger, tariff=tariff) as model:
            return await model.ask(question())

    assert asyncio.run(main()).text
    assert len(server.chats) == 3
    assert len(ledger) == 1
    assert ledger.spent("score").risked == pytest.approx(2 * worst)


def test_waits_after_timeouts_grow(server, ledger, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: waits.append(high) or 0.0)
    server.queue("hang", "hang", "hang")
    ask(server, ledger, timeout=0.1, deadline=20, first_wait=1.0)
    assert waits[:3] == [1.0, 2.0, 4.0]


# A server with nothing but chat completions


@pytest.fixture
def collected(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the collected run beside the store, which it names by a relative path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "lists"))
    copy = walk.run.with_name("faults")
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(walk.run, copy))


@pytest.mark.parametrize(
    ("status", "listing"),
    [
        (404, {"detail": "Not Found"}),
        (500, b"Internal Server Error"),
        (200, {"object": "list", "data": []}),
        (200, {"data": [{"id": "another", "max_model_len": 8192}]}),
        (200, b"<html>"),
    ],
)
def test_a_server_without_a_list_of_models_labels_all_the_same(server, collected, status, listing):
    server.models_status, server.listing = status, listing
    words = ("--model", "x/y", "--base-url", server.base_url, "--run", collected)
    assert interp("explain", *words, "--latents", "0-3", "--dense") == 0
    rows = read_jsonl(collected / "explanations.jsonl")
    assert len(rows) == 4
    paths = {request.path for request in server.requests}
    assert paths <= {"/v1/models", "/v1/chat/completions"}
