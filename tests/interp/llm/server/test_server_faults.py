"""What real servers were seen to do and a client must survive, each on a server that does it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import math
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.explain.explainer import VlmExplainer
from interp.llm.cost.price import Price
from interp.llm.cost.tariff import Tariff
from interp.llm.ledger.ledger import Ledger
from interp.llm.prompts import render
from interp.llm.repair import ask_until_usable
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.preflight import check_sight
from interp.llm.types import Picture, Question, Reply, ReplyError
from interp.pictures.grid import Tile, compose
from interp.records.codec import finished, from_json
from interp.records.types import Example, Explanation
from interp.score.answer import detect_schema, parse_scores
from sae.core.errors import FAILURES, UserError
from tests.support.commands import Walk, interp
from tests.support.interp.explaining import RGB, ColourSource, run
from tests.support.servers.loopback import Fault, Loopback, Request, _completion, explain_answer

CODES = ["A", "B"]
SCORES = '{"A": 90, "B": 10}'
Answer = tuple[int, bytes, str]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def says(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | str | Answer) -> None:
    """What the server sends, one after the other, the last for ever: a body, a text, or all."""
    left = list(answers)

    def respond(request: Request) -> Answer:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, tuple):
            return now
        body = _completion(request, now) if isinstance(now, str) else now
        return 200, json.dumps(body).encode(), "application/json"

    monkeypatch.setattr("loopback._respond", respond)


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


def sight(server: Loopback, ledger: Ledger) -> None:
    async def main() -> None:
        async with ChatModel(config(server, n_tries=3), ledger) as model:
            await check_sight(model)

    asyncio.run(main())


# Faults that do not pass, behind a status that says they may


def test_a_server_that_fails_the_first_small_question_is_sent_no_other(server, ledger):
    server.always = Fault("text_500")
    with pytest.raises(UserError, match="Internal Server Error") as caught:
        sight(server, ledger)
    assert caught.value.exit_code == FAILURES
    assert len(server.chats) == 3
    assert len({chat.digest for chat in server.chats}) == 1


@pytest.mark.parametrize("n_good", [1, 3])
def test_a_server_that_has_gone_ends_the_run_in_so_many_requests(server, ledger, n_good):
    server.queue(*[None] * n_good)
    server.always = Fault("500")

    async def main() -> list[Reply | BaseException]:
        quick = config(server, n_tries=1, concurrency=8, first_wait=0.001)
        async with ChatModel(quick, ledger) as model:
            asked = [question(f"red {n}") for n in range(200)]
            for one in asked[:n_good]:
                await model.ask(one)
            at_work = asyncio.Semaphore(8)

            async def one_of_eight(one: Question) -> Reply:
                async with at_work:
                    return await model.ask(one)

            rest = (one_of_eight(one) for one in asked[n_good:])
            return await asyncio.gather(*rest, return_exceptions=True)

    errors = asyncio.run(main())
    assert isinstance(errors[-1], UserError)
    assert "not answered by fake/vision" in str(errors[-1])
    assert len(server.chats) <= n_good + 2 * (32 + 8)  # two tries each


# Pictures that do not reach the model


@pytest.mark.parametrize(
    "said",
    [
        "A lovely picture.",
        "I cannot see any picture; please attach it.",
        '{"colour": "green"}',  # guessed: right for the first and wrong for the second
        '{"colour": "red, green, yellow or blue"}',
        "{}",
        "\ufffd\x08 sket\ufffd\ufffd",
    ],
)
def test_a_model_that_does_not_see_is_found_out_by_at_most_two_questions(
    server, ledger, monkeypatch, said
):
    says(monkeypatch, said)
    with pytest.raises(UserError, match="does not see the pictures") as caught:
        sight(server, ledger)
    assert len(server.chats) <= 2
    assert str(caught.value).isprintable()


def test_a_model_that_sees_is_asked_two_small_questions_and_on_no_second_start(server, ledger):
    sight(server, ledger)
    sight(server, ledger)
    assert len(server.chats) == 2
    assert all(len(json.dumps(chat.body)) < 5000 for chat in server.chats)


# A response_format that is taken and ignored


@pytest.mark.parametrize("said", [f"\n \t{SCORES}\n\n  ", SCORES, f"```json\n{SCORES}\n```"])
def test_white_space_and_fences_around_an_answer_cost_nothing(server, ledger, monkeypatch, said):
    says(monkeypatch, said)
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 90, "B": 10}
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("{}", "wrong_keys"),
        ('{"label": "red", "confidence": 0.9}', "wrong_keys"),
        ("Both show red discs.", "not_json"),
        ('{"A": 90, "B"', "not_json"),
        ('{"A": "high", "B": "low"}', "invalid"),
        ("\ufffd\x08=-det\x1b[2J", "not_json"),
    ],
)
def test_an_answer_of_another_form_is_mended_once_and_then_unusable(
    server, ledger, monkeypatch, said, kind
):
    says(monkeypatch, said)

    async def main() -> None:
        async with ChatModel(config(server), ledger) as model:
            await ask_until_usable(model, question(), lambda text: parse_scores(text, CODES))

    with pytest.raises(ReplyError) as caught:
        asyncio.run(main())
    assert (caught.value.kind, len(caught.value.calls)) == (kind, 2)
    assert len(server.chats) == 2


def test_where_schemas_are_ignored_they_are_soon_told_in_words(server, ledger, monkeypatch):
    says(monkeypatch, "I see red discs.")
    ask(server, ledger, *(question(f"red {n}") for n in range(6)))
    told = ["JSON schema" in " ".join(chat.texts) for chat in server.chats]
    assert not told[0]
    assert all(told[3:])


def test_half_of_an_answer_is_asked_again_with_more_room(server, ledger, monkeypatch):
    half = completion('{"A": 90, "B"')
    half["choices"][0]["finish_reason"] = "length"
    says(monkeypatch, half, completion())
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 90, "B": 10}
    assert [chat.body["max_tokens"] for chat in server.chats] == [100, 200]


# Who answers, and what it costs


@pytest.mark.parametrize("name", ["/models/tiny@main", "an alias", "another/model:free"])
def test_the_model_that_answered_is_recorded_when_it_is_not_the_one_asked(
    server, ledger, monkeypatch, name
):
    says(monkeypatch, completion(model=name))
    reply = ask(server, ledger)
    assert reply.model == name
    assert ask(server, ledger).model == name
    assert len(server.chats) == 1


def test_a_server_that_refuses_unknown_fields_is_sent_none(server, ledger, monkeypatch):
    known = {"model", "messages", "max_tokens", "temperature", "response_format"}

    def strict(request: Request) -> Answer:
        extra = sorted(set(request.body) - known)
        if extra:
            error = {"detail": f"Unexpected fields in the request: {set(extra)}"}
            return 422, json.dumps(error).encode(), "application/json"
        return 200, json.dumps(completion()).encode(), "application/json"

    monkeypatch.setattr("loopback._respond", strict)
    assert ask(server, ledger).text == SCORES
    with pytest.raises(ReplyError, match=r"Unexpected fields.*reasoning") as caught:
        ask(server, ledger, question("blue"), reasoning="low")
    assert caught.value.kind == "bad_request"


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": 279, "completion_tokens": 12, "total_tokens": 291}},
        {"usage": {"prompt_tokens": 279, "completion_tokens": 12, "cost": None}},
    ],
)
def test_a_cost_that_is_not_said_is_unknown_and_never_nought(server, ledger, monkeypatch, usage):
    says(monkeypatch, completion(**usage))
    reply = ask(server, ledger)
    assert math.isnan(reply.usage.usd)
    assert reply.usage.prompt_tokens == ((usage.get("usage") or {}).get("prompt_tokens") or 0)


def test_one_answer_is_asked_for_since_the_usage_of_more_is_wrong(server, ledger):
    ask(server, ledger)
    assert server.chats[0].body.get("n", 1) == 1


# Error bodies


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


# Text that is not fit to be shown


HOSTILE = "red\x1b[31m \x00discs\ufffd\u202e\x08 <b>&"


def test_no_control_character_of_an_answer_reaches_a_label(server, tmp_path, monkeypatch):
    def respond(request: Request) -> Answer:
        said = {**explain_answer(request), "label": HOSTILE, "description": HOSTILE}
        return 200, json.dumps(_completion(request, json.dumps(said))).encode(), "application/json"

    monkeypatch.setattr("loopback._respond", respond)
    assert run(tmp_path, server.base_url, 1).n_labelled == 1
    (row,) = finished(tmp_path / "explanations.jsonl")
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
    (row,) = finished(tmp_path / "explanations.jsonl")
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
    assert (caught.value.kind, caught.value.transient) == ("bad_request", False)
    assert len(server.chats) == 1


# Time and money


def test_a_question_that_timed_out_is_answered_later_and_may_have_been_billed(server, ledger):
    server.queue("hang", "hang")
    tariff = Tariff("fake/vision", Price(1e-6, 5e-6))
    worst = tariff.worst(question())

    async def main() -> Reply:
        patient = config(server, timeout=0.3, deadline=20)
        async with ChatModel(patient, ledger, tariff=tariff) as model:
            return await model.ask(question())

    assert asyncio.run(main()).text
    assert len(server.chats) == 3
    assert len(ledger) == 1
    assert ledger.spent("score").risked == pytest.approx(2 * worst)


def test_waits_after_timeouts_grow(server, ledger, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: waits.append(high) or 0.0)
    server.queue("hang", "hang", "hang")
    ask(server, ledger, timeout=0.1, deadline=20, first_wait=1.0)
    assert waits[:3] == [1.0, 2.0, 4.0]


# A server with nothing but chat completions


@pytest.fixture
def collected(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the collected run beside the store, which it names by a relative path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "lists"))
    copy = walk.run.with_name("faults")
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(walk.run, copy))


@pytest.mark.parametrize(
    ("status", "listing"),
    [
        (404, {"detail": "Not Found"}),
        (500, b"Internal Server Error"),
        (200, {"object": "list", "data": []}),
        (200, {"data": [{"id": "another", "max_model_len": 8192}]}),
        (200, b"<html>"),
    ],
)
def test_a_server_without_a_list_of_models_labels_all_the_same(server, collected, status, listing):
    server.models_status, server.listing = status, listing
    words = ("--model", "x/y", "--base-url", server.base_url, "--run", collected)
    assert interp("explain", *words, "--latents", "0-3", "--dense") == 0
    rows = list(finished(collected / "explanations.jsonl"))
    assert len(rows) == 4
    paths = {request.path for request in server.requests}
    assert paths <= {"/v1/models", "/v1/chat/completions"}
