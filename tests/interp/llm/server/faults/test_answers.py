"""Answers of another form, from another model or without a cost, as real servers sent them."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from interp.llm.repair import ask_until_usable
from interp.llm.server.client import ChatModel
from interp.llm.types import ReplyError
from interp.score.answer import parse_scores
from tests.support.servers.faulty import (
    CODES,
    SCORES,
    Answer,
    ask,
    completion,
    config,
    question,
    says,
)
from tests.support.servers.loopback_answers import Request

# A response_format that is taken and ignored


@pytest.mark.parametrize("said", [f"\n \t{SCORES}\n\n  ", SCORES, f"```json\n{SCORES}\n```"])
def test_white_space_and_fences_around_an_answer_cost_nothing(server, ledger, monkeypatch, said):
    says(monkeypatch, said)
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 90, "B": 10}
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("{}", "wrong_keys"),
        ('{"label": "red", "confidence": 0.9}', "wrong_keys"),
        ("Both show red discs.", "not_json"),
        ('{"A": 90, "B"', "not_json"),
        ('{"A": "high", "B": "low"}', "invalid"),
        ("\ufffd\x08=-det\x1b[2J", "not_json"),
    ],
)
def test_an_answer_of_another_form_is_mended_once_and_then_unusable(
    server, ledger, monkeypatch, said, kind
):
    says(monkeypatch, said)

    async def main() -> None:
        async with ChatModel(config(server), ledger) as model:
            await ask_until_usable(model, question(), lambda text: parse_scores(text, CODES))

    with pytest.raises(ReplyError) as caught:
        asyncio.run(main())
    assert (caught.value.kind, len(caught.value.calls)) == (kind, 2)
    assert len(server.chats) == 2


def test_where_schemas_are_ignored_they_are_soon_told_in_words(server, ledger, monkeypatch):
    says(monkeypatch, "I see red discs.")
    ask(server, ledger, *(question(f"red {n}") for n in range(6)))
    told = ["JSON schema" in " ".join(chat.texts) for chat in server.chats]
    assert not told[0]
    assert all(told[3:])


def test_half_of_an_answer_is_asked_again_with_more_room(server, ledger, monkeypatch):
    half = completion('{"A": 90, "B"')
    half["choices"][0]["finish_reason"] = "length"
    says(monkeypatch, half, completion())
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 90, "B": 10}
    assert [chat.body["max_tokens"] for chat in server.chats] == [100, 200]


# Who answers, and what it costs


@pytest.mark.parametrize("name", ["/models/tiny@main", "an alias", "another/model:free"])
def test_the_model_that_answered_is_recorded_when_it_is_not_the_one_asked(
    server, ledger, monkeypatch, name
):
    says(monkeypatch, completion(model=name))
    reply = ask(server, ledger)
    assert reply.model == name
    assert ask(server, ledger).model == name
    assert len(server.chats) == 1


def test_a_server_that_refuses_unknown_fields_is_sent_none(server, ledger, monkeypatch):
    known = {"model", "messages", "max_tokens", "temperature", "response_format"}

    def strict(request: Request) -> Answer:
        extra = sorted(set(request.body) - known)
        if extra:
            error = {"detail": f"Unexpected fields in the request: {set(extra)}"}
            return 422, json.dumps(error).encode(), "application/json"
        return 200, json.dumps(completion()).encode(), "application/json"

    monkeypatch.setattr("tests.support.servers.loopback.respond", strict)
    assert ask(server, ledger).text == SCORES
    with pytest.raises(ReplyError, match=r"Unexpected fields.*reasoning") as caught:
        ask(server, ledger, question("blue"), reasoning="low")
    assert caught.value.kind == "bad_request"


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": 279, "completion_tokens": 12, "total_tokens": 291}},
        {"usage": {"prompt_tokens": 279, "completion_tokens": 12, "cost": None}},
    ],
)
def test_a_cost_that_is_not_said_is_unknown_and_never_nought(server, ledger, monkeypatch, usage):
    says(monkeypatch, completion(**usage))
    reply = ask(server, ledger)
    assert math.isnan(reply.usage.usd)
    assert reply.usage.prompt_tokens == ((usage.get("usage") or {}).get("prompt_tokens") or 0)


def test_one_answer_is_asked_for_since_the_usage_of_more_is_wrong(server, ledger):
    ask(server, ledger)
    assert server.chats[0].body.get("n", 1) == 1
