"""The exact requests as files, without sending them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from interp.llm.server.chat_format import FORMS, Form
from interp.llm.server.http import ClientConfig, request_json
from interp.llm.types import Picture, Question, Reply
from sae.core.files import replacing

FOLDER = "dry-run"


class Unasked:
    """A `VisionModel` in name only: for those who draw questions and send none."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, question: Question) -> Reply:
        """Nobody asks it."""
        raise AssertionError(f"{question.about} was to be drawn only")


def write_requests(
    folder: Path, config: ClientConfig, questions: Iterable[Question], form: Form
) -> list[Path]:
    """One JSON file a request, exactly as it would be sent, and its pictures beside it.

    What an earlier dry run left in `folder` goes first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    written = []
    for number, question in enumerate(questions, start=1):
        name = f"{number:03d}-{question.about.replace(' ', '-')}"
        asked = FORMS[-1] if question.schema is None else form
        body = request_json(config, question, asked)
        for which, picture in enumerate(question.pictures, start=1):
            with replacing(folder / f"{name}-{which:02d}.{_suffix(picture)}") as part:
                part.write_bytes(picture.data)
        with replacing(folder / f"{name}.json") as part:
            part.write_text(json.dumps(body, ensure_ascii=False, indent=1), encoding="utf-8")
        written.append(folder / f"{name}.json")
    return written


def _suffix(picture: Picture) -> str:
    return "png" if picture.media_type == "image/png" else "jpg"
