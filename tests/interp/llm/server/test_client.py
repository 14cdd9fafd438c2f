import asyncio
import dataclasses
import io
import logging
import math
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from PIL import Image

from interp.llm.ledger.ledger import Ledger
from interp.llm.prompts import render
from interp.llm.repair import ask_until_usable
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.errors import retry_after
from interp.llm.server.http import request_json
from interp.llm.types import Question, Reply, ReplyError
from interp.pictures.grid import Tile, compose
from interp.score.answer import detect_schema, parse_scores
from sae.core.errors import BUDGET, FAILURES, USAGE, UserError
from tests.support.servers.loopback import COST, Fault, Loopback

KEY = "sk-or-canary-0123456789abcdef"
CODES = ["A", "B"]


def question(label="red discs", **changes) -> Question:
    tiles = [Tile("A", Image.new("RGB", (99, 99), "red")), Tile("B", Image.new("RGB", (99, 99)))]
    asked = Question(
        system=render("system", layout="grid"),
        parts=(render("detect", codes=CODES, label=label, description=""), compose(tiles, 2)),
        schema=detect_schema(CODES),
        schema_name="detect",
        max_tokens=100,
        temperature=0.0,
        prompt="f" * 64,
    )
    return dataclasses.replace(asked, **changes)


@pytest.fixture
def server():
    with Loopback() as running:
        yield running


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def config(server, **changes) -> ClientConfig:
    quick = ClientConfig("fake/vision", server.base_url, timeout=5, deadline=10, first_wait=0.01)
    return dataclasses.replace(quick, **changes)


@asynccontextmanager
async def opened(server, ledger, key=KEY, **changes) -> AsyncIterator[ChatModel]:
    async with ChatModel(config(server, **changes), ledger, key) as model:
        yield model


def ask(server, ledger, *questions, key=KEY, **changes):
    """Ask one after the other; the last reply, or its error."""

    async def main():
        async with opened(server, ledger, key, **changes) as model:
            replies = [await model.ask(one) for one in (questions or (question(),))]
        return replies[-1]

    return asyncio.run(main())


def error_of(server, ledger, *questions, **changes) -> ReplyError:
    with pytest.raises(ReplyError) as caught:
        ask(server, ledger, *questions, **changes)
    return caught.value


def test_an_answer_comes_with_model_provider_usage_and_cost(server, ledger):
    reply = ask(server, ledger)
    assert parse_scores(reply.text, CODES) == {"A": 100, "B": 0}
    assert (reply.model, reply.provider, reply.finish_reason) == ("fake/vision", "Loopback", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.usd) == (100, COST)
    assert ledger.get(reply.key) == reply


def test_the_request_holds_all_that_a_server_needs_and_nothing_of_openrouter(server, ledger):
    ask(server, ledger)
    (request,) = server.chats
    body = request.body
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "response_format"}
    assert body["response_format"]["json_schema"]["strict"] is True
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.pictures[0].size == (448, 224)


def test_openrouter_is_told_to_heed_the_schema():
    home = ClientConfig("m", "https://openrouter.ai/api/v1")
    assert request_json(home, question(), "strict")["provider"] == {"require_parameters": True}
    assert "provider" not in request_json(home, question(), "plain")
    other = ClientConfig("m", "https://openrouter.ai.evil.org/v1")
    assert "provider" not in request_json(other, question(), "strict")


def test_reasoning_effort_is_sent_and_is_part_of_the_key(server, ledger):
    plain = ask(server, ledger)
    reply = ask(server, ledger, reasoning="minimal")
    assert server.chats[-1].body["reasoning"] == {"effort": "minimal"}
    assert reply.key != plain.key


def test_what_was_answered_is_not_asked_again_by_another_client(server, ledger):
    first = ask(server, ledger)
    assert ask(server, ledger) == first
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *("429", "402_in_flight", "408", "500", "503", "text_500", "html", "broken", "drop"),
        *("error_200", "error_200_odd", "error_200_429", "finish_error"),
        *("choices_null", "choices_empty", "content_null"),
    ],
)
def test_a_passing_fault_is_asked_again_until_answered(server, ledger, fault):
    server.queue(fault)
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 100, "B": 0}
    assert len(server.chats) == 2
    assert len(ledger) == 1


def test_a_hanging_server_is_given_up_and_asked_again(server, ledger):
    server.queue("hang")
    ask(server, ledger, timeout=0.3)
    assert len(server.chats) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "n_requests"),
    [
        ("500", "server", 3),
        ("html", "html", 3),
        ("broken", "broken_body", 3),
        ("choices_null", "empty", 2),
        ("content_null", "empty", 2),
        ("error_200", "server", 3),
        ("error_200_odd", "error_body", 3),
        ("finish_error", "error_body", 2),  # like the two above: billed, though of no use
        ("drop", "connection", 3),
        ("400", "bad_request", 1),
        ("403", "moderated", 1),
        ("content_filter", "refused", 1),
        ("refusal", "refused", 1),
    ],
)
def test_a_lasting_fault_ends_in_its_kind(server, ledger, fault, kind, n_requests):
    server.always = Fault(fault)
    assert error_of(server, ledger, n_tries=3).kind == kind
    assert len(server.chats) == n_requests


@pytest.mark.parametrize("fault", ["429", "402_in_flight"])
def test_what_waiting_cures_is_waited_for_beyond_the_tries_of_other_faults(server, ledger, fault):
    server.queue(*[fault] * 6)
    assert ask(server, ledger, n_tries=2, first_wait=0.001, deadline=60).text
    assert len(server.chats) == 7


@pytest.mark.parametrize("fault", ["429", "503", "402_in_flight"])
def test_no_retry_comes_sooner_than_retry_after(server, ledger, fault):
    server.queue(fault, retry_after=0.4)
    ask(server, ledger)
    first, second = server.chats
    assert second.at - first.at >= 0.4


def test_a_retry_after_beyond_the_deadline_ends_at_once(server, ledger):
    server.queue("429", retry_after=3600)
    assert error_of(server, ledger).kind == "rate_limit"
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 1e10)],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text, low, high):
    assert low <= retry_after({"retry-after": text}) <= high


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf"])
def test_a_retry_after_that_says_nothing_is_none(text):
    assert retry_after({"retry-after": text}) is None


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("401", USAGE, "OPENROUTER_API_KEY"),
        ("402", BUDGET, "no credit left"),
        ("404", USAGE, "nothing answers for model 'fake/vision'"),
    ],
)
def test_what_no_waiting_cures_ends_the_run_after_one_request(server, ledger, fault, code, words):
    server.always = Fault(fault)

    async def main():
        async with opened(server, ledger) as model:
            for _ in range(3):
                with pytest.raises(UserError, match=words) as caught:
                    await model.ask(question())
                assert caught.value.exit_code == code

    asyncio.run(main())
    assert len(server.chats) == 1


def test_a_server_that_answers_no_question_at_all_ends_the_run(server, ledger):
    server.always = Fault("500")

    async def main():
        async with opened(server, ledger, n_tries=3) as model:
            for n in range(2):
                with pytest.raises(ReplyError):
                    await model.ask(question(f"red {n}"))
            with pytest.raises(UserError, match="no question was answered by fake/vision") as end:
                await model.ask(question("red 2"))
        assert end.value.exit_code == FAILURES

    asyncio.run(main())


def test_an_unreachable_server_is_not_waited_for_until_the_deadline(server, ledger):
    url = server.base_url.replace("127.0.0.1", "127.0.0.2")  # nobody listens there
    error = error_of(server, ledger, base_url=url, deadline=1000)
    assert error.kind == "connection"


def test_a_moderated_question_does_not_stop_the_others(server, ledger):
    server.queue(*["403"] * 6)

    async def main():
        async with opened(server, ledger) as model:
            for n in range(6):
                with pytest.raises(ReplyError, match="moderated"):
                    await model.ask(question(f"red {n}"))
            return await model.ask(question())

    assert asyncio.run(main()).text


@pytest.mark.parametrize("form", ["strict", "schema", "object", "plain"])
def test_the_strongest_form_that_the_server_takes_is_found_and_remembered(server, ledger, form):
    ladder = ["strict", "schema", "object", "plain"]
    server.forms = frozenset(ladder[ladder.index(form) :])
    reply = ask(server, ledger, question(), question("red discs again"))
    assert parse_scores(reply.text, CODES) == {"A": 100, "B": 0}
    assert len(server.chats) == ladder.index(form) + 2
    in_words = "follows this JSON schema" in " ".join(server.chats[-1].texts)
    assert in_words == (form in ("object", "plain"))


def test_the_form_of_asking_does_not_change_the_key(server, ledger):
    strict = ask(server, ledger)
    server.forms = frozenset({"plain"})
    assert ask(server, ledger) == strict


def test_an_answer_cut_short_is_asked_once_more_with_twice_the_room(server, ledger):
    server.queue("truncated")
    reply = ask(server, ledger)
    assert [chat.body["max_tokens"] for chat in server.chats] == [100, 200]
    assert parse_scores(reply.text, CODES) == {"A": 100, "B": 0}
    assert len(reply.calls) == 2
    assert reply.usage.usd == pytest.approx(2 * COST)
    assert ask(server, ledger) == reply
    assert len(server.chats) == 2


def test_an_answer_cut_twice_is_truncated_and_what_was_paid_is_told(server, ledger):
    server.always = Fault("truncated")
    error = error_of(server, ledger)
    assert (error.kind, len(error.calls)) == ("truncated", 2)
    assert error.usage.usd == pytest.approx(2 * COST)


def test_a_refusal_is_an_answer_and_is_not_asked_again(server, ledger):
    server.queue("refusal")
    first = error_of(server, ledger)
    assert error_of(server, ledger).message == first.message == "I will not look at this."
    assert len(server.chats) == 1
    assert first.usage.usd == COST


def test_a_server_without_cost_leaves_it_unknown(server, ledger, monkeypatch):
    monkeypatch.setattr("loopback.COST", None)
    assert math.isnan(ask(server, ledger).usage.usd)


@pytest.mark.parametrize("fault", ["prose", "wrong_letters"])
def test_an_unusable_answer_is_mended_once_with_its_own_key(server, ledger, fault):
    server.queue(fault)

    async def main():
        async with opened(server, ledger) as model:
            return await ask_until_usable(model, question(), lambda t: parse_scores(t, CODES))

    answered = asyncio.run(main())
    assert answered.value == {"A": 100, "B": 0}
    assert len(set(answered.calls)) == 2
    assert answered.usd == pytest.approx(2 * COST)
    assert "could not be used: <<<" in server.chats[1].texts[-1]


def test_what_stays_unusable_is_an_error_with_all_that_was_paid(server, ledger):
    server.always = Fault("prose")

    async def main():
        async with opened(server, ledger) as model:
            await ask_until_usable(model, question(), lambda t: parse_scores(t, CODES))

    for _ in range(2):
        with pytest.raises(ReplyError) as caught:
            asyncio.run(main())
        assert (caught.value.kind, len(caught.value.calls)) == ("not_json", 2)
        assert len(server.chats) == 2  # unusable answers are answers: not asked again


def test_fences_and_commas_need_no_second_question(server, ledger):
    server.queue("fenced")
    assert parse_scores(ask(server, ledger).text, CODES) == {"A": 100, "B": 0}


def test_a_missing_key_is_a_user_error_for_openrouter_only(server, ledger, monkeypatch):
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENROUTER_API_KEY is not set"):
        ChatModel(ClientConfig("m"), ledger)
    ask(server, ledger, key=None)
    assert server.chats[0].headers["authorization"] == "Bearer none"


def test_the_key_comes_from_the_environment(server, ledger, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", f" {KEY}\n")
    ask(server, ledger, key=None)
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("bad", ["sk-ü", "sk-a\nb", "a b"])
def test_a_garbled_key_is_refused_without_being_shown(ledger, bad):
    with pytest.raises(UserError, match="characters that no key has") as caught:
        ChatModel(ClientConfig("m"), ledger, bad)
    assert bad not in str(caught.value)


@pytest.mark.parametrize("url", ["openrouter.ai/api", "ftp://x", "", "http://"])
def test_a_base_url_without_scheme_or_host_is_refused(url):
    with pytest.raises(UserError, match="--base-url"):
        ClientConfig("m", url)


def test_user_and_password_of_a_base_url_are_in_no_file_and_no_message(server, ledger):
    url = server.base_url.replace("http://", "http://me:geheim@")
    ask(server, ledger, base_url=url)
    ledger.close()
    assert all(b"geheim" not in p.read_bytes() for p in ledger.path.parent.iterdir())


FAULTS = ["echo", "401", "402", "403", "404", "500", "html", "broken", "drop", "error_200"]


@pytest.mark.parametrize("fault", [*FAULTS, "echo_answer", None])
def test_the_key_is_in_no_file_log_message_repr_or_traceback(server, ledger, fault, caplog):
    caplog.set_level(logging.DEBUG)
    server.always = Fault(fault) if fault else None
    shown = io.StringIO()
    try:
        model = ChatModel(config(server, n_tries=2), ledger, KEY)
        shown.write(f"{model!r} {vars(model)!r} {model._server._key!r}")
        asyncio.run(one(model))
    except (ReplyError, UserError) as error:
        shown.write(repr(error) + repr(vars(error)))
        seen: BaseException | None = error
        while seen is not None:
            assert not type(seen).__module__.startswith(("openai", "httpx"))
            seen = seen.__context__
        # Without this test's own frame, whose server has recorded the headers.
        own = error.with_traceback(error.__traceback__.tb_next)
        traceback.TracebackException.from_exception(own, capture_locals=True).print(file=shown)
    ledger.close()
    files = b"".join(p.read_bytes() for p in ledger.path.parent.iterdir())
    assert KEY not in shown.getvalue()
    assert KEY not in caplog.text
    assert KEY.encode() not in files
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
    if fault in ("echo", "echo_answer"):
        assert "[key]" in shown.getvalue() or b"[key]" in files


async def one(model: ChatModel) -> Reply:
    async with model:
        return await model.ask(question())


def test_halves_of_surrogate_pairs_in_an_answer_do_not_break_the_ledger(
    server, ledger, monkeypatch
):
    monkeypatch.setattr("loopback._said", lambda request: "\ud800 half")
    reply = ask(server, ledger)
    assert reply.text == "? half"
    assert ledger.get(reply.key) == reply


def test_at_most_the_concurrency_is_sent_after_a_refused_key(server, ledger):
    server.latency = 0.05
    server.always = Fault("401")

    async def main():
        async with opened(server, ledger) as model:
            asks = (model.ask(question(f"red {n}")) for n in range(40))
            return await asyncio.gather(*limited(asks, 8), return_exceptions=True)

    errors = asyncio.run(main())
    assert all(isinstance(error, UserError) for error in errors)
    assert len(server.chats) <= 8


def limited(asks, n: int):
    gate = asyncio.Semaphore(n)

    async def through(one):
        async with gate:
            return await one

    return [through(one) for one in asks]


def test_a_storm_of_faults_loses_no_question_and_repeats_no_answer(server, ledger):
    mix = ["429", None, "500", None, None, "broken", None, "error_200", None, "html", None, None]
    server.queue(*(mix * 5), retry_after=0.01)

    async def main():
        async with opened(server, ledger) as model:
            asks = (model.ask(question(f"red {n}")) for n in range(30))
            return await asyncio.gather(*limited(asks, 8))

    assert len(asyncio.run(main())) == 30
    assert set(server.answered.values()) == {1}
    assert len(ledger) == 30
