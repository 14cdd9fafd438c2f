"""Pictures of one colour, and questions about them to a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import random

from PIL import Image

from interp.llm.ledger.ledger import Ledger
from interp.llm.replies.schemas import parse_object
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Picture, Question, Reply
from tests.support.servers.real_servers import Served
from tests.support.servers.tiny_vlm import RGB

COLOURS = tuple(RGB)
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["label", "confidence"],
    "properties": {"label": {"type": "string"}, "confidence": {"type": "number"}},
}


def picture(colour: str, seed: int = 0, side: int = 224) -> Picture:
    """A shade of a colour with a small spot, so that no two are the same."""
    rng = random.Random(seed)
    shade = tuple(min(255, max(0, value + rng.randint(-15, 15))) for value in RGB[colour])
    image = Image.new("RGB", (side, side), shade)
    image.paste((128, 128, 128), (rng.randrange(150), rng.randrange(150), 160, 160))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return Picture(file.getvalue(), "image/jpeg")


def question(*pictures: Picture, text: str = "Which colour?", max_tokens: int = 64) -> Question:
    return Question(
        system="You look at pictures and answer with JSON only.",
        parts=(text, *pictures),
        schema=SCHEMA,
        schema_name="colour",
        max_tokens=max_tokens,
        temperature=0.0,
        prompt="f" * 64,
        about="explain 1",
    )


def ask(
    served: Served, ledger: Ledger, *questions: Question, key: str | None = None, **changes
) -> list[Reply]:
    """Ask all at once, at most 16 in flight."""
    config = dataclasses.replace(config_of(served), **changes)

    async def main() -> list[Reply]:
        async with ChatModel(config, ledger, key) as model:
            return await asyncio.gather(*(model.ask(one) for one in questions))

    return asyncio.run(main())


def config_of(served: Served) -> ClientConfig:
    return ClientConfig(
        served.model, served.base_url, concurrency=16, timeout=60, deadline=120, first_wait=0.05
    )


def label(reply: Reply) -> str:
    return str(parse_object(reply.text)["label"])
