import asyncio

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.preflight import ASKED, check_sight, names
from sae.core.errors import FAILURES, USAGE, UserError
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Fault


@pytest.fixture
def server():
    with Loopback() as loopback:
        yield loopback


def look(server, folder):
    async def main():
        config = ClientConfig("fake/vision", server.base_url, n_tries=2, first_wait=0.01)
        with Ledger(folder / "calls.sqlite") as ledger:
            async with ChatModel(config, ledger, "sk-test") as model:
                await check_sight(model)

    asyncio.run(main())


def test_a_model_that_names_both_colours_sees(server, tmp_path):
    look(server, tmp_path)
    assert len(server.chats) == len(ASKED)


def test_it_is_paid_for_once_a_run(server, tmp_path):
    look(server, tmp_path)
    look(server, tmp_path)
    assert len(server.chats) == len(ASKED)


def test_a_model_that_is_not_shown_the_picture_is_found_out_by_the_first_question(server, tmp_path):
    server.always = Fault("blind")
    with pytest.raises(UserError, match=r"does not see the pictures.*purple") as caught:
        look(server, tmp_path)
    assert caught.value.exit_code == USAGE
    assert len(server.chats) == 1


def test_a_server_that_does_not_answer_ends_the_run_with_its_reason(server, tmp_path):
    server.always = Fault("html")
    with pytest.raises(UserError, match="did not answer a first small question") as caught:
        look(server, tmp_path)
    assert caught.value.exit_code == FAILURES


@pytest.mark.parametrize(
    ("text", "colour", "named"),
    [
        ('{"colour": "green"}', "green", True),
        ("The picture is Green.", "green", True),
        ("light-green", "green", True),
        ("not green but blue", "green", False),
        ("I cannot see any picture", "green", False),
        ("greenish", "green", False),
        ("", "green", False),
    ],
)
def test_an_answer_names_one_colour_or_it_does_not_count(text, colour, named):
    assert names(text, colour) == named
