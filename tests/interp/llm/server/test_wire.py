import json

import pytest

from interp.llm.server.chat_format import encode_body
from interp.llm.server.dialect import FORMS, Dialect
from interp.llm.server.http import ClientConfig, request_json
from interp.llm.types import Picture, Question

TRICKY = ["plain", 'a "url": "\0" b', '\\"url\\": \\"\\u0000\\"', "Ünïcödé 猫\n\t"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", TRICKY)
def test_the_bytes_on_the_wire_are_the_request_whatever_its_texts_say(form, text):
    parts = (text, Picture(b"\x00\xff one", "image/png"), text, Picture(b"two", "image/jpeg"), text)
    question = Question(text, parts, {"type": "object"}, "detect", 9, 0.0, "p")
    body = request_json(
        ClientConfig("m", "https://openrouter.ai/api/v1"), question, Dialect(form=form)
    )
    assert json.loads(encode_body(body)) == body


def test_a_question_without_pictures_is_sent_too():
    question = Question("s", ("t",), None, "", 9, 0.0, "p")
    body = request_json(ClientConfig("m", "http://127.0.0.1/v1"), question, Dialect(form="plain"))
    assert json.loads(encode_body(body)) == body
