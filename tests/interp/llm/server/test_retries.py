"""Faults of a server: which are waited for, which end a question, which end the run."""

import asyncio

import pytest

from interp.llm.server.error_body import retry_after
from interp.llm.types import ReplyError
from interp.score.answer import parse_scores
from sae.core.errors import BUDGET, FAILURES, USAGE, UserError
from tests.support.servers.client_questions import CODES, ask, error_of, opened, question
from tests.support.servers.loopback_answers import Fault


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
