"""A fake server that sends what a test says, and small questions to it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from PIL import Image

from interp.llm.ledger.ledger import Ledger
from interp.llm.prompts import render
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Picture, Question, Reply
from interp.pictures.grid import Tile, compose
from interp.score.answer import detect_schema
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Request, chat_body

CODES = ["A", "B"]
SCORES = '{"A": 90, "B": 10}'
Answer = tuple[int, bytes, str]


def says(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | str | Answer) -> None:
    """What the server sends, one after the other, the last for ever: a body, a text, or all."""
    left = list(answers)

    def respond(request: Request) -> Answer:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, tuple):
            return now
        body = chat_body(request, now) if isinstance(now, str) else now
        return 200, json.dumps(body).encode(), "application/json"

    monkeypatch.setattr("tests.support.servers.loopback.respond", respond)


def completion(text: str = SCORES, **changes: Any) -> dict[str, Any]:
    """A body as servers send it, with other top-level fields."""
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"model": "fake/vision", "choices": [choice], **changes}


def pair(padding: int = 0) -> Picture:
    """A red and a black picture in one grid, with bytes after its end where they are asked for."""
    tiles = [Tile("A", Image.new("RGB", (99, 99), "red")), Tile("B", Image.new("RGB", (99, 99)))]
    drawn = compose(tiles, 2)
    return Picture(drawn.data + bytes(padding), drawn.media_type)


def question(label: str = "red discs", padding: int = 0) -> Question:
    return Question(
        system="You look at pictures.",
        parts=(render("detect", codes=CODES, label=label, description=""), pair(padding)),
        schema=detect_schema(CODES),
        schema_name="detect",
        max_tokens=100,
        temperature=0.0,
        prompt="f" * 64,
        about="score 1",
    )


def config(server: Loopback, **changes: Any) -> ClientConfig:
    quick = ClientConfig(
        "fake/vision", server.base_url, concurrency=4, timeout=5, deadline=10, first_wait=0.01
    )
    return dataclasses.replace(quick, **changes)


def ask(server: Loopback, ledger: Ledger, *questions: Question, **changes: Any) -> Reply:
    """Ask one after the other; the last reply."""

    async def main() -> list[Reply]:
        async with ChatModel(config(server, **changes), ledger) as model:
            return [await model.ask(one) for one in questions or (question(),)]

    return asyncio.run(main())[-1]
