"""Errors in every shape that real servers were seen to send."""

from __future__ import annotations

import json

import pytest

from interp.llm.types import ReplyError
from tests.support.servers.faulty import SCORES, ask, completion, says


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"detail": "the picture is broken"}),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "the picture is broken"}]}),
        (400, {"error": {"code": 400, "message": "the picture is broken"}}),
        (400, {"error": "the picture is broken"}),
        (400, {"message": "the picture is broken"}),
        (400, ["the picture is broken"]),
        (400, "the picture is broken"),
    ],
)
def test_the_reason_is_found_in_every_shape_of_error(server, ledger, monkeypatch, status, body):
    text = body if isinstance(body, str) else json.dumps(body)
    kind = "text/plain" if isinstance(body, str) else "application/json"
    says(monkeypatch, (status, text.encode(), kind))
    with pytest.raises(ReplyError, match="the picture is broken") as caught:
        ask(server, ledger)
    assert caught.value.kind == "bad_request"
    assert len(server.chats) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html; charset=utf-8"])
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"error": null}', b"\xff\xfe\x00"])
def test_an_error_without_a_reason_is_an_error_all_the_same(
    server, ledger, monkeypatch, body, kind
):
    says(monkeypatch, (400, body, kind))
    with pytest.raises(ReplyError) as caught:
        ask(server, ledger)
    assert caught.value.kind == "bad_request"
    assert len(server.chats) == 1


@pytest.mark.parametrize("body", [b"", b"Internal Server Error", b'{"detail": "out of memory"}'])
def test_a_500_of_any_shape_is_tried_again(server, ledger, monkeypatch, body):
    says(monkeypatch, (500, body, "text/plain"), completion())
    assert ask(server, ledger).text == SCORES
    assert len(server.chats) == 2
