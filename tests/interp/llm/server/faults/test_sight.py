"""Servers whose model is sent a picture and does not see it, as real ones were seen to do."""

from __future__ import annotations

import asyncio
import json

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel
from interp.llm.server.preflight import check_sight
from sae.core.errors import FAILURES, UserError
from tests.support.servers.faulty import config, says
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Fault


def sight(server: Loopback, ledger: Ledger) -> None:
    async def main() -> None:
        async with ChatModel(config(server, n_tries=3), ledger) as model:
            await check_sight(model)

    asyncio.run(main())


# Faults that do not pass, behind a status that says they may


def test_a_server_that_fails_the_first_small_question_is_sent_no_other(server, ledger):
    server.always = Fault("text_500")
    with pytest.raises(UserError, match="Internal Server Error") as caught:
        sight(server, ledger)
    assert caught.value.exit_code == FAILURES
    assert len(server.chats) == 3
    assert len({chat.digest for chat in server.chats}) == 1


# Pictures that do not reach the model


@pytest.mark.parametrize(
    "said",
    [
        "A lovely picture.",
        "I cannot see any picture; please attach it.",
        '{"colour": "green"}',  # guessed: right for the first and wrong for the second
        '{"colour": "red, green, yellow or blue"}',
        "{}",
        "\ufffd\x08 sket\ufffd\ufffd",
    ],
)
def test_a_model_that_does_not_see_is_found_out_by_at_most_two_questions(
    server, ledger, monkeypatch, said
):
    says(monkeypatch, said)
    with pytest.raises(UserError, match="does not see the pictures") as caught:
        sight(server, ledger)
    assert len(server.chats) <= 2
    assert str(caught.value).isprintable()


def test_a_model_that_sees_is_asked_two_small_questions_and_on_no_second_start(server, ledger):
    sight(server, ledger)
    sight(server, ledger)
    assert len(server.chats) == 2
    assert all(len(json.dumps(chat.body)) < 5000 for chat in server.chats)
