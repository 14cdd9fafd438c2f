"""What a server refuses of a request is left out, named otherwise or folded in, and remembered."""

import asyncio
import dataclasses
import json
import re

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.dialect import Dialect, Unsupported
from interp.llm.server.ladder import Ladder, dialect_note, read_dialect
from interp.llm.server.preflight import check_sight
from interp.llm.types import ReplyError
from tests.support.servers.bodies import completion
from tests.support.servers.client_questions import ask, error_of, question
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import COST, error

JSON, PROSE = '{"A": 1}', "I see a cat."
FORM = Unsupported("form", ReplyError("bad_request", "no schemas here"))


def down(ladder: Ladder, sent: Dialect) -> bool:
    return ladder.step(sent, FORM, question(), 100)


def test_a_form_that_is_refused_is_left_for_the_next_until_there_is_none(ledger):
    ladder = Ladder(ledger, "server model")
    met = []
    while True:
        met.append(ladder.dialect.form)
        if not down(ladder, ladder.dialect):
            break
    assert met == ["strict", "schema", "object", "plain"]


def test_two_questions_that_were_refused_together_go_down_one_step(ledger):
    ladder = Ladder(ledger, "server model")
    assert down(ladder, Dialect())
    assert down(ladder, Dialect())
    assert ladder.dialect.form == "schema"


def test_what_works_is_remembered_per_server_model_and_provider(ledger):
    down(Ladder(ledger, "server model"), Dialect())
    assert Ladder(ledger, "server model").dialect.form == "schema"
    assert Ladder(ledger, "server model other-provider").dialect == Dialect()


@pytest.mark.parametrize(
    ("note", "form"),
    [
        (None, "strict"),
        ("object", "object"),  # of the first version
        ("nonsense", "strict"),
        ('{"form": "plain", "temperature": false}', "plain"),
        ('{"form": 7}', "strict"),
        ('{"other": 7}', "strict"),
        ("[1]", "strict"),
    ],
)
def test_notes_of_any_age_and_damage_are_read(note, form):
    assert read_dialect(note).form == form


def test_a_provider_that_takes_a_schema_and_answers_in_prose_is_told_in_words(ledger):
    ladder = Ladder(ledger, "server model")
    ladder.record_answer(Dialect(), PROSE, "Careless")
    assert ladder.dialect.form == "strict"
    ladder.record_answer(Dialect(), PROSE, "Careless")
    assert ladder.dialect.form == "object"


def test_prose_now_and_then_changes_nothing(ledger):
    ladder = Ladder(ledger, "server model")
    for text in (PROSE, JSON, PROSE, PROSE):
        ladder.record_answer(Dialect(), text, "Careful")
    ladder.record_answer(Dialect(), PROSE, "Another")
    assert ladder.dialect.form == "strict"


def test_a_second_run_does_not_try_the_forms_again(tmp_path):
    with Loopback(forms=frozenset({"object", "plain"})) as server:

        async def look(folder):
            config = ClientConfig("fake/vision", server.base_url, concurrency=2)
            with Ledger(folder / "calls.sqlite") as ledger:
                async with ChatModel(config, ledger, "sk-test") as model:
                    await check_sight(model)

        asyncio.run(look(tmp_path))
        assert len(server.chats) == 4  # strict, schema, object; then the second colour at once
        with Ledger(tmp_path / "calls.sqlite") as ledger:
            assert Ladder(ledger, f"{server.base_url} fake/vision").dialect.form == "object"


def openai_like(message, param):
    return {"error": {"message": message, "type": "invalid_request_error", "param": param}}


REFUSALS = [
    (
        lambda body: "max_tokens" in body,
        400,
        openai_like("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                    "'max_completion_tokens' instead.", "max_tokens"),
        lambda body: body["max_completion_tokens"] == 100,
    ),
    (
        lambda body: any("tokens" in key for key in body),
        422,
        {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]},
        lambda body: not any("tokens" in key for key in body),
    ),
    (
        lambda body: body.get("temperature", 1) != 1,
        400,
        openai_like("Unsupported value: 'temperature' does not support 0.0 with this model.",
                    "temperature"),
        lambda body: "temperature" not in body,
    ),
    (
        lambda body: body["messages"][0]["role"] == "system",
        500,
        {"error": "jinja2.exceptions.TemplateError: System role not supported"},
        lambda body: len(body["messages"]) == 1 and "text" in body["messages"][0]["content"][0],
    ),
    (
        lambda body: body["messages"][0]["role"] == "system",
        400,
        openai_like("Invalid value", "messages[0].role"),
        lambda body: [m["role"] for m in body["messages"]] == ["user"],
    ),
    (
        lambda body: '"detail"' not in json.dumps(body),
        400,
        openai_like("image_url.detail is required", "messages"),
        lambda body: body["messages"][1]["content"][1]["image_url"]["detail"] == "auto",
    ),
    (
        lambda body: body.get("max_tokens", 0) > 80,
        400,
        openai_like("max_tokens is too large: 100. This model supports at most 80 completion "
                    "tokens.", "max_tokens"),
        lambda body: body["max_tokens"] == 80,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("refuses", "status", "body", "right"), REFUSALS)
def test_a_field_that_is_refused_is_sent_otherwise_paid_once_and_remembered(
    server, ledger, refuses, status, body, right
):
    server.refuse = lambda request: (status, body) if refuses(request.body) else None
    for _ in range(2):
        assert ask(server, ledger).usage.usd == COST
    n_refused = len(server.chats) - 1  # the second time it is read from the ledger
    assert n_refused in (1, 2)
    assert right(server.chats[-1].body)
    ask(server, ledger, question("blue discs"))
    assert len(server.chats) == n_refused + 2  # asked at once in the dialect that was learned
    assert len(ledger) == 2
    assert ledger.spent("").n_unknown == 0


def test_several_fields_are_refused_one_after_the_other(server, ledger):
    def refuse(request):
        for wrong, status, body, _ in REFUSALS[:4]:
            if wrong(request.body):
                return status, body
        return None

    server.refuse = refuse
    ask(server, ledger)
    body = server.chats[-1].body
    assert not {"max_tokens", "max_completion_tokens", "temperature"} & set(body)
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_refusal_that_nothing_cures_is_the_servers_word(server, ledger):
    server.refuse = lambda request: (400, openai_like("temperature is a lie", "temperature"))
    found = error_of(server, ledger)
    assert (found.kind, found.message) == ("bad_request", "400: temperature is a lie")
    assert len(server.chats) == 2


def test_reasoning_has_two_names_and_is_never_left_out_in_silence(server, ledger):
    def refuse(request):
        if "reasoning" in request.body:
            return 400, openai_like("Unknown parameter: 'reasoning'.", "reasoning")
        return None

    server.refuse = refuse
    ask(server, ledger, reasoning="low")
    assert server.chats[-1].body["reasoning_effort"] == "low"
    server.refuse = lambda request: (400, openai_like("reasoning_effort: only 'high'", None))
    found = error_of(server, ledger, question("blue discs"), reasoning="low")
    assert "--reasoning" in found.message
    assert "only 'high'" in found.message


@pytest.mark.parametrize(
    "message",
    [
        "Model 'x/y' supports at most 1 image per prompt.",
        "Multiple images are not supported by this model",
        "At most 2 image(s) may be provided in one prompt.",
        "too many images in request",
    ],
)
def test_pictures_are_put_on_one_sheet_where_a_server_takes_one(server, ledger, message):
    asked = question()
    asked = dataclasses.replace(asked, parts=(asked.parts[0], "One:", asked.parts[1], "Two:",
                                              asked.parts[1], "Now answer."))  # fmt: skip

    def refuse(request):
        raw = json.dumps({"error": {"message": message}})
        many = len(request.pictures) > 1
        refused = 400, error(400, "Provider returned error", raw=raw)
        return refused if many else (200, completion('{"A": 90, "B": 10}'))

    server.refuse = refuse
    ask(server, ledger, asked)
    (sheet,) = server.chats[-1].pictures
    width, height = asked.pictures[0].size
    assert sheet.width > 2 * width
    assert sheet.height > height
    first, second = (sheet.crop((x, 28, x + width, 28 + height)) for x in (8, 16 + width))
    assert first.resize((8, 8)).tobytes() != bytes(8 * 8 * 3)
    assert max(abs(a - b) for a, b in zip(first.tobytes(), second.tobytes(), strict=True)) < 60
    assert server.chats[-1].texts == [asked.parts[0], "Now answer."]
    note = ledger.note(dialect_note(f"{server.base_url} fake/vision"))
    assert message[:20] in json.loads(note)["said"]["pictures"]


def thinker(n_thoughts, spoken=""):
    """Thinks `n_thoughts` tokens before every answer, and is cut in the midst of it."""

    def cut(request):
        room = request.body.get("max_tokens", 10**6)
        if room >= n_thoughts + 50:
            return None
        message = {"role": "assistant", "content": spoken, "reasoning_content": "Let me look"}
        usage = {"prompt_tokens": 100, "completion_tokens": room, "cost": COST,
                 "completion_tokens_details": {"reasoning_tokens": room}}  # fmt: skip
        choice = {"index": 0, "finish_reason": "length", "message": message}
        return 200, {"model": "fake/vision", "choices": [choice], "usage": usage}

    return cut


def rooms(server):
    return [request.body["max_tokens"] for request in server.chats]


@pytest.mark.parametrize("spoken", ["", '{"A": 9', "<think>Let me look"])
def test_a_model_that_thinks_gets_room_that_grows_and_is_remembered(server, ledger, spoken):
    server.refuse = thinker(1500, spoken)
    reply = ask(server, ledger)
    assert rooms(server) == [100, 1100, 4100]
    assert len(reply.calls) == 3
    assert reply.usage.usd == pytest.approx(3 * COST)
    ask(server, ledger, question("blue discs"))
    assert rooms(server)[3:] == [4100]
    again = ask(server, ledger)
    assert again.calls == reply.calls
    assert len(server.chats) == 4  # nothing is paid twice


def test_growth_ends_and_the_message_says_what_ate_the_budget(server, ledger):
    server.refuse = thinker(10**6)
    found = error_of(server, ledger)
    assert rooms(server) == [100, 1100, 4100, 16100]
    assert found.kind == "truncated"
    assert re.search(
        r"thoughts took 16,100 of 16,100 tokens.*--max-tokens.*--reasoning", str(found)
    )
    assert len(found.calls) == 4
    assert error_of(server, ledger).calls == found.calls
    assert len(server.chats) == 4


def test_max_tokens_is_taken_as_it_is_and_more_of_it_asks_again(server, ledger):
    server.refuse = thinker(1500)
    assert error_of(server, ledger, max_tokens=500).kind == "truncated"
    assert rooms(server) == [500]
    assert error_of(server, ledger, max_tokens=500).kind == "truncated"
    assert rooms(server) == [500]
    assert len(ask(server, ledger, max_tokens=3000).calls) == 2
    assert rooms(server) == [500, 3000]
    ask(server, ledger)
    ask(server, ledger, max_tokens=500)
    assert rooms(server) == [500, 3000]  # the whole answer is there, whatever the room now


def test_a_server_that_says_with_a_400_that_thoughts_took_the_room_gets_more(server, ledger):
    message = (
        "Could not finish the message because max_tokens or model output limit was reached. "
        "Please try again with higher max_tokens."
    )
    server.refuse = lambda request: (
        (400, {"error": {"message": message}}) if request.body["max_tokens"] < 2000 else None
    )
    ask(server, ledger)
    assert rooms(server) == [100, 1100, 4100]


def test_room_for_thoughts_that_the_context_has_not_is_taken_back(server, ledger):
    ask(server, ledger)
    ledger.set_note(dialect_note(f"{server.base_url} fake/vision"), '{"thoughts": 16000}')
    message = "This model's maximum context length is 4096 tokens. However, you requested more."
    server.refuse = lambda request: (
        (400, openai_like(message, "messages")) if request.body["max_tokens"] > 3000 else None
    )
    ask(server, ledger, question("blue discs"))
    assert rooms(server) == [100, 16100, 8050, 4025, 2012]
