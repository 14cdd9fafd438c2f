import asyncio

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.json_mode import FormLadder
from interp.llm.server.preflight import check_sight
from tests.support.servers.loopback import Loopback

JSON, PROSE = '{"A": 1}', "I see a cat."


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def test_a_form_that_is_refused_is_left_for_the_next_until_there_is_none(ledger):
    ladder = FormLadder(ledger, "server model")
    met = []
    while True:
        met.append(ladder.form)
        if not ladder.step_down(ladder.form):
            break
    assert met == ["strict", "schema", "object", "plain"]


def test_two_questions_that_were_refused_together_go_down_one_step(ledger):
    ladder = FormLadder(ledger, "server model")
    assert ladder.step_down("strict")
    assert ladder.step_down("strict")
    assert ladder.form == "schema"


def test_what_works_is_remembered_per_server_model_and_provider(ledger):
    FormLadder(ledger, "server model").step_down("strict")
    assert FormLadder(ledger, "server model").form == "schema"
    assert FormLadder(ledger, "server model other-provider").form == "strict"


def test_a_provider_that_takes_a_schema_and_answers_in_prose_is_told_in_words(ledger):
    ladder = FormLadder(ledger, "server model")
    ladder.record_answer("strict", PROSE, "Careless")
    assert ladder.form == "strict"
    ladder.record_answer("strict", PROSE, "Careless")
    assert ladder.form == "object"


def test_prose_now_and_then_changes_nothing(ledger):
    ladder = FormLadder(ledger, "server model")
    for text in (PROSE, JSON, PROSE, PROSE):
        ladder.record_answer("strict", text, "Careful")
    ladder.record_answer("strict", PROSE, "Another")
    assert ladder.form == "strict"


def test_a_second_run_does_not_try_the_forms_again(tmp_path):
    with Loopback(forms=frozenset({"object", "plain"})) as server:

        async def look(folder):
            config = ClientConfig("fake/vision", server.base_url, concurrency=2)
            with Ledger(folder / "calls.sqlite") as ledger:
                async with ChatModel(config, ledger, "sk-test") as model:
                    await check_sight(model)
                ladder = FormLadder(ledger, f"{server.base_url} fake/vision")
                assert ladder.form == "object"

        asyncio.run(look(tmp_path))
        assert len(server.chats) == 4  # strict, schema, object; then the second colour at once
        with Ledger(tmp_path / "calls.sqlite") as ledger:
            assert FormLadder(ledger, f"{server.base_url} fake/vision").form == "object"
