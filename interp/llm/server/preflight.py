"""Two small questions before a paid run: does this model see what it is sent?

A text-only model, a gateway that drops pictures and a wrong route all answer with status 200 and
plausible text; only a picture whose content is known tells.
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from PIL import Image

from interp.llm.prompts import fingerprint, render
from interp.llm.types import Picture, Question, ReplyError, VisionModel
from sae.core.errors import FAILURES, UserError

STAGE = "preflight"
COLOURS = {
    "green": (30, 170, 50),
    "yellow": (230, 210, 40),
    "red": (220, 20, 20),
    "blue": (30, 60, 210),
}
"""Names with one clear colour each (RGB)."""
ASKED = ("green", "yellow")
"""Two of them: a model that guesses is right once in sixteen times."""
_SIDE = 224
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["colour"],
    "properties": {"colour": {"type": "string"}},
}


@asynccontextmanager
async def preflight(model: VisionModel) -> AsyncIterator[None]:
    """Enter it before the first paid question: raises `UserError` when the model sees nothing."""
    await check_sight(model)
    yield


async def check_sight(model: VisionModel) -> None:
    """Ask for the colours of two pictures, one after the other.

    The first question also finds the form in which this server can be asked for JSON, before many
    are in flight. Raises `UserError` when an answer is wrong or missing.
    """
    for colour in ASKED:
        try:
            reply = await model.ask(_question(colour))
        except ReplyError as error:
            raise UserError(
                f"{model.name} did not answer a first small question with a picture "
                f"({error.kind}: {error.message}); nothing else was sent{_advice(error)}",
                FAILURES,
            ) from None
        if not names(reply.text, colour):
            said = " ".join(reply.text.split())[:60]
            raise UserError(
                f"{model.name} does not see the pictures that it is sent: it called a {colour} "
                f"picture {said!r}; nothing else was sent. Choose a model that takes images "
                "(`interp models` lists them), or another --provider"
            )


def _advice(error: ReplyError) -> str:
    if error.kind == "truncated":
        return ""  # the message says what to do
    return "; check --model and --base-url, or run `interp doctor --model MODEL`"


def names(text: str, colour: str) -> bool:
    """Whether an answer names this colour and no other."""
    said = set(re.findall(r"[a-z]+", text.lower()))
    return {name for name in COLOURS if name in said} == {colour}


def _question(colour: str) -> Question:
    return Question(
        system=render("system", layout="separate"),
        parts=(render("preflight"), _square(colour)),
        schema=_SCHEMA,
        schema_name="colour",
        max_tokens=200,
        temperature=0.0,
        prompt=fingerprint(("system", "preflight"), _SCHEMA),
        about=STAGE,
    )


def _square(colour: str) -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), COLOURS[colour]).save(file, "PNG")
    return Picture(file.getvalue(), "image/png")
