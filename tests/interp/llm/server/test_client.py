"""One question to a server -> one stored reply."""

import asyncio
import math

import pytest

from interp.llm.repair import ask_until_usable
from interp.llm.server.client import ClientConfig
from interp.llm.server.dialect import Dialect
from interp.llm.server.http import request_json
from interp.llm.types import ReplyError
from interp.score.answer import parse_scores
from tests.support.servers.client_questions import CODES, KEY, ask, error_of, opened, question
from tests.support.servers.loopback_answers import COST, Fault


def test_an_answer_comes_with_model_provider_usage_and_cost(server, ledger):
    reply = ask(server, ledger)
    assert parse_scores(reply.text, CODES) == {"A": 100, "B": 0}
    assert (reply.model, reply.provider, reply.finish_reason) == ("fake/vision", "Loopback", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.usd) == (100, COST)
    assert ledger.get(reply.key) == reply


def test_the_request_holds_all_that_a_server_needs_and_nothing_of_openrouter(server, ledger):
    ask(server, ledger)
    (request,) = server.chats
    body = request.body
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "response_format"}
    assert body["response_format"]["json_schema"]["strict"] is True
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.pictures[0].size == (448, 224)


def test_openrouter_is_told_to_heed_the_schema():
    home = ClientConfig("m", "https://openrouter.ai/api/v1")
    assert request_json(home, question(), Dialect())["provider"] == {"require_parameters": True}
    assert "provider" not in request_json(home, question(), Dialect(form="plain"))
    other = ClientConfig("m", "https://openrouter.ai.evil.org/v1")
    assert "provider" not in request_json(other, question(), Dialect())


def test_reasoning_effort_is_sent_and_is_part_of_the_key(server, ledger):
    plain = ask(server, ledger)
    reply = ask(server, ledger, reasoning="minimal")
    assert server.chats[-1].body["reasoning"] == {"effort": "minimal"}
    assert reply.key != plain.key


def test_what_was_answered_is_not_asked_again_by_another_client(server, ledger):
    first = ask(server, ledger)
    assert ask(server, ledger) == first
    assert len(server.chats) == 1


@pytest.mark.parametrize("form", ["strict", "schema", "object", "plain"])
def test_the_strongest_form_that_the_server_takes_is_found_and_remembered(server, ledger, form):
    ladder = ["strict", "schema", "object", "plain"]
    server.forms = frozenset(ladder[ladder.index(form) :])
    reply = ask(server, ledger, question(), question("red discs again"))
    assert parse_scores(reply.text, CODES) == {"A": 100, "B": 0}
    assert len(server.chats) == ladder.index(form) + 2
    in_words = "follows this JSON schema" in " ".join(server.chats[-1].texts)
    assert in_words == (form in ("object", "plain"))


def test_the_form_of_asking_does_not_change_the_key(server, ledger):
    strict = ask(server, ledger)
    server.forms = frozenset({"plain"})
    assert ask(server, ledger) == strict


def test_an_answer_cut_short_is_asked_once_more_with_twice_the_room(server, ledger):
    server.queue("truncated")
    reply = ask(server, ledger)
    assert [chat.body["max_tokens"] for chat in server.chats] == [100, 200]
    assert parse_scores(reply.text, CODES) == {"A": 100, "B": 0}
    assert len(reply.calls) == 2
    assert reply.usage.usd == pytest.approx(2 * COST)
    assert ask(server, ledger) == reply
    assert len(server.chats) == 2


def test_an_answer_cut_twice_is_truncated_and_what_was_paid_is_told(server, ledger):
    server.always = Fault("truncated")
    error = error_of(server, ledger)
    assert (error.kind, len(error.calls)) == ("truncated", 2)
    assert error.usage.usd == pytest.approx(2 * COST)


def test_a_refusal_is_an_answer_and_is_not_asked_again(server, ledger):
    server.queue("refusal")
    first = error_of(server, ledger)
    assert error_of(server, ledger).message == first.message == "I will not look at this."
    assert len(server.chats) == 1
    assert first.usage.usd == COST


def test_a_server_without_cost_leaves_it_unknown(server, ledger, monkeypatch):
    monkeypatch.setattr("tests.support.servers.loopback_answers.COST", None)
    assert math.isnan(ask(server, ledger).usage.usd)


@pytest.mark.parametrize("fault", ["prose", "wrong_letters"])
def test_an_unusable_answer_is_mended_once_with_its_own_key(server, ledger, fault):
    server.queue(fault)

    async def main():
        async with opened(server, ledger) as model:
            return await ask_until_usable(model, question(), lambda t: parse_scores(t, CODES))

    answered = asyncio.run(main())
    assert answered.value == {"A": 100, "B": 0}
    assert len(set(answered.calls)) == 2
    assert answered.usd == pytest.approx(2 * COST)
    assert "could not be used: <<<" in server.chats[1].texts[-1]


def test_what_stays_unusable_is_an_error_with_all_that_was_paid(server, ledger):
    server.always = Fault("prose")

    async def main():
        async with opened(server, ledger) as model:
            await ask_until_usable(model, question(), lambda t: parse_scores(t, CODES))

    for _ in range(2):
        with pytest.raises(ReplyError) as caught:
            asyncio.run(main())
        assert (caught.value.kind, len(caught.value.calls)) == ("not_json", 2)
        assert len(server.chats) == 2  # unusable answers are answers: not asked again


def test_an_answer_that_leaves_a_letter_out_is_kept_and_asked_anew_only_on_request(
    server, ledger, monkeypatch
):
    where = "tests.support.servers.loopback_answers.text_of_answer"
    monkeypatch.setattr(where, lambda request: '{"A": 90, "B": null}')

    async def main(again):
        async with opened(server, ledger) as model:
            return await ask_until_usable(
                model,
                question(),
                lambda text: parse_scores(text, CODES),
                again=again,
                is_whole=lambda scores: None not in scores.values(),
            )

    assert asyncio.run(main(False)).value == {"A": 90, "B": None}
    assert asyncio.run(main(False)).value == {"A": 90, "B": None}
    assert len(server.chats) == 1
    server.always = Fault("prose")
    assert asyncio.run(main(True)).value == {"A": 90, "B": None}  # no better one came
    server.always = None
    monkeypatch.setattr(where, lambda request: '{"A": 90, "B": 7}')
    assert asyncio.run(main(True)).value == {"A": 90, "B": 7}


def test_fences_and_commas_need_no_second_question(server, ledger):
    server.queue("fenced")
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 100, "B": 0}


def test_halves_of_surrogate_pairs_in_an_answer_do_not_break_the_ledger(
    server, ledger, monkeypatch
):
    monkeypatch.setattr(
        "tests.support.servers.loopback_answers.text_of_answer", lambda request: "\ud800 half"
    )
    reply = ask(server, ledger)
    assert reply.text == "? half"
    assert ledger.get(reply.key) == reply
