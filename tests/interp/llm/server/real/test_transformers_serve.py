"""`transformers serve`, which ignores, drops, and answers 500 to what it does not know."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.replies.schemas import parse_object
from interp.llm.server.client import ChatModel
from interp.llm.server.preflight import check_sight
from interp.llm.types import ReplyError
from sae.core.errors import UserError
from tests.support.servers.colour_questions import COLOURS, ask, config_of, picture, question
from tests.support.servers.real_servers import Served, tiny_model, transformers_serve

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def transformers(folder: Path) -> Iterator[str]:
    with transformers_serve(folder) as base_url:
        yield base_url


def test_a_model_of_another_name_may_answer_and_is_recorded(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("fitted", folder)))
    (reply,) = ask(served, ledger, question(picture("red")))
    assert reply.model == f"{served.model}@main"


def test_a_dropped_picture_is_found_out_before_anything_is_paid(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("text_only", folder)))

    async def main() -> None:
        async with ChatModel(config_of(served), ledger) as model:
            asked = (question(picture("red")), question())
            in_prose = [model.ask(dataclasses.replace(one, schema=None)) for one in asked]
            with_picture, without = await asyncio.gather(*in_prose, return_exceptions=True)
            # Random weights do not stop by themselves: both are answered with 200 and cut.
            assert isinstance(with_picture, ReplyError)
            assert isinstance(without, ReplyError)
            assert with_picture.usage.prompt_tokens == without.usage.prompt_tokens > 0
            await check_sight(model)

    with pytest.raises(UserError, match=r"does not see|did not answer a first small question"):
        asyncio.run(main())


def test_rubbish_is_kept_as_it_came_and_has_no_value(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("random", folder)))
    asked = [question(picture(colour), text=f"say {colour}") for colour in COLOURS[:3]]
    with pytest.raises(ReplyError, match="cut twice"):  # it never ends by itself
        ask(served, ledger, *asked)
    replies = [ledger.get(key) for key in keys(ledger)]
    assert replies
    for reply in replies:
        assert reply is not None
        assert reply.text.strip()
        with pytest.raises(ReplyError, match="not_json"):
            parse_object(reply.text)


def keys(ledger: Ledger) -> list[str]:
    with sqlite3.connect(f"file:{ledger.path}?mode=ro", uri=True) as calls:
        return [key for (key,) in calls.execute("SELECT key FROM calls")]


def test_a_field_that_the_server_does_not_know_is_named(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("fitted", folder)))
    with pytest.raises(ReplyError, match="reasoning") as caught:
        ask(served, ledger, question(picture("red")), reasoning="low")
    assert caught.value.kind == "bad_request"


def test_an_unknown_model_ends_the_run(transformers, ledger):
    served = Served(transformers, "nobody/has-this")

    async def main() -> None:
        async with ChatModel(dataclasses.replace(config_of(served), n_tries=2), ledger) as model:
            with pytest.raises(ReplyError):
                await model.ask(question(picture("red")))
            await model.ask(question(picture("blue")))

    with pytest.raises(UserError, match="nobody/has-this"):
        asyncio.run(main())
