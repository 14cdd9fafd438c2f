"""A dry run's files are what is sent."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image

from interp.llm.server.dialect import Dialect
from interp.llm.server.http import ClientConfig
from interp.llm.types import Picture, Question
from interp.pipeline.paid.dry_run import Request, write_requests


def picture(colour: str) -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return Picture(file.getvalue(), "image/png")


def test_for_a_server_of_one_picture_a_request_the_sheet_is_written(tmp_path: Path) -> None:
    parts = ("A", picture("red"), "B", picture("blue"))
    question = Question("Be brief.", parts, None, "", 10, 0.0, "p", about="explain 3")
    config = ClientConfig("x/y", base_url="http://127.0.0.1:1/v1")
    request = Request(config, question, Dialect(one_picture=True))
    (path,) = write_requests(tmp_path / "dry", [request])
    content = json.loads(path.read_text())["messages"][1]["content"]
    (sent,) = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    (shown,) = [one for one in path.parent.iterdir() if one.suffix != ".json"]
    assert shown.read_bytes() == base64.b64decode(sent.partition("base64,")[2])
