"""The exact requests as files, without sending them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from interp.llm.server.chat_format import shown_parts
from interp.llm.server.dialect import Dialect
from interp.llm.server.http import ClientConfig, request_json
from interp.llm.types import Picture, Question, Reply
from sae.core.files import replacing_folder

FOLDER = "dry-run"


class Unasked:
    """A `VisionModel` in name only: for those who draw questions and send none."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, question: Question) -> Reply:
        """Nobody asks it."""
        raise AssertionError(f"{question.about} was to be drawn only")


class Request(NamedTuple):
    """A question, and all that decides how it is sent."""

    config: ClientConfig
    question: Question
    dialect: Dialect


def write_requests(folder: Path, requests: Iterable[Request]) -> list[Path]:
    """One JSON file a request, exactly as it would be sent, and its pictures beside it.

    They take the place of what an earlier dry run left in `folder`.
    """
    written = []
    with replacing_folder(folder) as part:
        for number, (config, question, dialect) in enumerate(requests, start=1):
            name = f"{number:03d}-{question.about.replace(' ', '-')}"
            body = request_json(config, question, dialect.for_schema(question))
            parts = shown_parts(question, dialect)
            pictures = [shown for shown in parts if isinstance(shown, Picture)]
            for which, picture in enumerate(pictures, start=1):
                (part / f"{name}-{which:02d}.{_suffix(picture)}").write_bytes(picture.data)
            text = json.dumps(body, ensure_ascii=False, indent=1)
            (part / f"{name}.json").write_text(text, encoding="utf-8")
            written.append(folder / f"{name}.json")
    return written


def _suffix(picture: Picture) -> str:
    return "png" if picture.media_type == "image/png" else "jpg"
