"""Text that is not fit to be shown, and the pictures that are sent."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import unicodedata

import pytest
from PIL import Image

from interp.explain.explainer import VlmExplainer
from interp.llm.server.client import ChatModel
from interp.llm.types import ReplyError
from interp.records.codec import from_json
from interp.records.types import Example, Explanation
from sae.core.files import read_jsonl
from tests.support.interp.explaining import RGB, ColourSource, run
from tests.support.servers.faulty import Answer, ask, config, question, says
from tests.support.servers.loopback_answers import Request, chat_body, explain_answer

# Text that is not fit to be shown


HOSTILE = "red\x1b[31m \x00discs\ufffd\u202e\x08 <b>&"


def test_no_control_character_of_an_answer_reaches_a_label(server, tmp_path, monkeypatch):
    def respond(request: Request) -> Answer:
        said = {**explain_answer(request), "label": HOSTILE, "description": HOSTILE}
        return 200, json.dumps(chat_body(request, json.dumps(said))).encode(), "application/json"

    monkeypatch.setattr("tests.support.servers.loopback.respond", respond)
    assert run(tmp_path, server.base_url, 1).n_labelled == 1
    (row,) = read_jsonl(tmp_path / "explanations.jsonl")
    made = from_json(Explanation, row)
    for text in (made.label, made.description):
        assert text is not None
        assert "discs" in text
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
    assert "markup" in made.lint


def test_very_long_rubbish_is_stored_and_is_no_label(server, tmp_path, monkeypatch):
    says(monkeypatch, "\ufffd{" * 200_000)
    summary = run(tmp_path, server.base_url, 1)
    assert summary.failures == {"not_json": 1}
    (row,) = read_jsonl(tmp_path / "explanations.jsonl")
    assert row["label"] is None


# What is sent


class _OddSource(ColourSource):
    """Images as nobody wants to send them: slivers, huge ones, one pixel."""

    sizes = ((1, 900), (900, 1), (3000, 2000), (1, 1), (20, 20))

    def image(self, example: Example) -> Image.Image:
        size = self.sizes[int(example.image_id[:4], 16) % len(self.sizes)]
        return Image.new("RGB", size, RGB[example.path])


@pytest.mark.parametrize("layout", ["grid", "separate"])
def test_every_picture_is_a_plain_small_file_of_ordinary_shape(server, ledger, layout):
    async def main() -> None:
        model = ChatModel(config(server), ledger)
        explainer = VlmExplainer(model)
        if layout == "separate":
            changed = dataclasses.replace(explainer.config, layout="separate")
            explainer = VlmExplainer(model, changed)
        source = _OddSource()
        async with explainer:
            await explainer.explain(source.of(0), source.image)

    asyncio.run(main())
    parts = server.chats[0].body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert len(urls) >= (2 if layout == "grid" else 12)
    assert all(
        url.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for url in urls
    )
    for sent, url in zip(server.chats[0].pictures, urls, strict=True):
        assert 56 <= min(sent.size) <= max(sent.size) <= 1344
        assert max(sent.size) / min(sent.size) <= 3
        assert len(url) < 2_000_000


def test_pictures_are_never_progressive_nor_of_another_mode(server, tmp_path):
    import base64

    run(tmp_path, server.base_url, 1)
    parts = server.chats[0].body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    for url in urls:
        image = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))
        assert image.format in ("JPEG", "PNG")
        assert url.startswith(f"data:image/{image.format.lower()};")
        assert image.mode in ("RGB", "L")
        assert not image.info.get("progressive")


def test_a_body_over_20_megabytes_fails_its_question_and_is_not_sent(server, ledger):
    big = question(padding=16_000_000)  # in base64 a third more
    with pytest.raises(ReplyError, match="20 MB") as caught:
        ask(server, ledger, question(), big)
    assert caught.value.kind == "bad_request"
    assert len(server.chats) == 1
