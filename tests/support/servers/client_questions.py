"""Small questions to a fake server through the client."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from PIL import Image

from interp.llm.prompts import render
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Question, ReplyError
from interp.pictures.grid import Tile, compose
from interp.score.answer import detect_schema

KEY = "sk-or-canary-0123456789abcdef"
CODES = ["A", "B"]


def question(label="red discs", **changes) -> Question:
    tiles = [Tile("A", Image.new("RGB", (99, 99), "red")), Tile("B", Image.new("RGB", (99, 99)))]
    asked = Question(
        system=render("system", layout="grid"),
        parts=(render("detect", codes=CODES, label=label, description=""), compose(tiles, 2)),
        schema=detect_schema(CODES),
        schema_name="detect",
        max_tokens=100,
        temperature=0.0,
        prompt="f" * 64,
    )
    return dataclasses.replace(asked, **changes)


def config(server, **changes) -> ClientConfig:
    quick = ClientConfig("fake/vision", server.base_url, timeout=5, deadline=10, first_wait=0.01)
    return dataclasses.replace(quick, **changes)


@asynccontextmanager
async def opened(server, ledger, key=KEY, **changes) -> AsyncIterator[ChatModel]:
    async with ChatModel(config(server, **changes), ledger, key) as model:
        yield model


def ask(server, ledger, *questions, key=KEY, **changes):
    """Ask one after the other; the last reply, or its error."""

    async def main():
        async with opened(server, ledger, key, **changes) as model:
            replies = [await model.ask(one) for one in (questions or (question(),))]
        return replies[-1]

    return asyncio.run(main())


def error_of(server, ledger, *questions, **changes) -> ReplyError:
    with pytest.raises(ReplyError) as caught:
        ask(server, ledger, *questions, **changes)
    return caught.value
