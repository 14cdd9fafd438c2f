"""aimock, which answers as OpenRouter documents."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel
from interp.llm.types import Reply
from sae.core.errors import BUDGET, USAGE, UserError
from tests.support.commands import interp
from tests.support.servers.colour_questions import ask, config_of, label, picture, question
from tests.support.servers.real_servers import Served, aimock

pytestmark = pytest.mark.server


ANSWER = {"label": "red", "confidence": 0.9}
PAID = {"prompt_tokens": 300, "completion_tokens": 12, "cost": 0.00025}
FIXTURES = [
    {
        "match": {"userMessage": "patience", "sequenceIndex": 0},
        "response": {"error": {"message": "Rate limited"}, "status": 429, "retryAfter": 1},
    },
    {
        "match": {"userMessage": "no money"},
        "response": {
            "error": {
                "message": "Insufficient credits",
                "metadata": {"limit_source": "openrouter_credits"},
            },
            "status": 402,
        },
    },
    {"match": {}, "response": {"content": ANSWER, "usage": PAID}},
]
KEY = "sk-or-for-the-mock"
MODEL = "google/gemini-2.0-flash-001"


@pytest.fixture(scope="session")
def router(folder: Path) -> Iterator[Served]:
    with aimock(folder / "router", FIXTURES, keys=KEY) as base_url:
        yield Served(base_url, MODEL)


def test_what_the_router_bills_and_who_answered_is_kept(router, ledger):
    (reply,) = ask(router, ledger, question(picture("red")), key=KEY)
    assert label(reply) == "red"
    assert (reply.model, reply.provider) == (MODEL, "google")
    assert (reply.usage.usd, reply.usage.prompt_tokens) == (0.00025, 300)


def test_routing_options_are_taken(router, ledger):
    routing = {"provider": ("google",), "quantization": ("bf16",), "zdr": True}
    (reply,) = ask(router, ledger, question(picture("red")), key=KEY, **routing)
    assert label(reply) == "red"


def test_a_wrong_key_ends_the_run_with_its_remedy(router, ledger):
    with pytest.raises(UserError, match="OPENROUTER_API_KEY") as caught:
        ask(router, ledger, question(picture("red")), key="sk-or-wrong")
    assert caught.value.exit_code == USAGE
    assert "sk-or-wrong" not in str(caught.value)


def test_no_credit_ends_the_run_with_its_own_exit_code(router, ledger):
    with pytest.raises(UserError, match="no credit left") as caught:
        ask(router, ledger, question(picture("red"), text="no money"), key=KEY)
    assert caught.value.exit_code == BUDGET


def test_a_rate_limit_is_waited_for_as_long_as_the_router_asks(router, ledger):
    started = time.monotonic()
    (reply,) = ask(router, ledger, question(picture("red"), text="patience"), key=KEY)
    assert label(reply) == "red"
    assert time.monotonic() - started >= 1.0


def test_a_model_without_eyes_is_refused_by_the_routers_own_list(router, run, monkeypatch, capsys):
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    words = ("explain", "--run", run, "--model", MODEL, "--base-url", router.base_url)
    assert interp(*words, "--latents", "0,1") == USAGE
    assert "image" in capsys.readouterr().err
    with Ledger(run / "calls.sqlite") as ledger:
        assert len(ledger) == 0


def test_in_chaos_all_of_200_questions_are_answered_once(folder, ledger):
    chaos = {"ratelimit": 0.2, "malformed": 0.1, "disconnect": 0.1, "drop": 0.1}
    words = [word for kind, rate in chaos.items() for word in (f"--chaos-{kind}", str(rate))]
    asked = [question(picture("red", n), text=f"Which colour, {n}?") for n in range(200)]
    with aimock(folder / "chaos", FIXTURES[-1:], *words) as base_url:
        config = dataclasses.replace(
            config_of(Served(base_url, MODEL)), timeout=20, deadline=300, n_tries=20
        )

        async def main() -> tuple[list[Reply], int]:
            async with ChatModel(config, ledger, KEY) as model:
                return await asyncio.gather(*(model.ask(one) for one in asked)), model.n_sent

        replies, n_sent = asyncio.run(main())
    assert [label(reply) for reply in replies] == ["red"] * 200
    assert len({reply.key for reply in replies}) == len(ledger) == 200
    assert n_sent > 250  # so there was chaos
