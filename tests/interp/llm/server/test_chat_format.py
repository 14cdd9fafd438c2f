"""All that a gateway can answer with status 200, by example."""

import json
import math

import pytest

from interp.llm.server.chat_format import read_body
from interp.llm.server.dialect import Unsupported
from interp.llm.types import Reply, ReplyError, Usage
from interp.score.answer import parse_scores
from sae.core.errors import UserError
from tests.support.servers.bodies import completion


def read(body):
    return read_body(body if isinstance(body, str) else json.dumps(body), {}, "asked/model", "k")


ANSWERS = [
    (completion(), "fine", "stop"),
    (completion("half", "length"), "half", "length"),
    (completion("half", "MAX_TOKENS"), "half", "length"),
    (completion(None, "length"), "", "length"),
    (completion("", "content_filter"), "", "content_filter"),
    (completion("x", "SAFETY"), "x", "content_filter"),
    (completion("x", "refusal"), "x", "content_filter"),
    (completion("x", None), "x", "stop"),
    (completion("x", 7), "x", "stop"),
    (completion("x", "tool_calls"), "x", "tool_calls"),
    (completion([{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}]), "fine", "stop"),
    (completion([{"type": "thinking", "thinking": "hm"}, "fine"]), "fine", "stop"),
    (completion({"type": "text", "text": "fine"}), "fine", "stop"),
    (completion(None, message={"refusal": "I will not."}), "I will not.", "refusal"),
    (completion("x", message={"refusal": ""}), "x", "stop"),
    (completion("half \ud83d"), "half ?", "stop"),
    ({**completion(), "error": None}, "fine", "stop"),
    ({**completion(), "error": {}}, "fine", "stop"),
    ({**completion(), "detail": "all went well"}, "fine", "stop"),
    ("\ufeff" + json.dumps(completion()), "fine", "stop"),
    ("\n \n" * 50 + json.dumps(completion()) + "\n", "fine", "stop"),
    (json.dumps(completion(logprobs=math.nan)), "fine", "stop"),
]


@pytest.mark.parametrize(("body", "text", "reason"), ANSWERS)
def test_an_answer_is_kept_whatever_is_odd_around_it(body, text, reason):
    reply = read(body)
    assert isinstance(reply, Reply), reply
    assert (reply.text, reply.finish_reason, reply.key) == (text, reason, "k")
    assert reply.usage == Usage(100, 20, 0.25)


CODED = {"code": 429, "message": "busy"}
NO_ANSWERS = [
    ("", "broken_body"),
    ("null", "broken_body"),
    ("[]", "broken_body"),
    ("{}", "broken_body"),
    ("7", "broken_body"),
    ('"fine"', "broken_body"),
    (json.dumps(completion())[:-1], "broken_body"),
    (json.dumps(completion()) * 2, "broken_body"),
    ("[" * 100_000, "broken_body"),
    ('{"choices":' * 50_000 + "1" + "}" * 50_000, "broken_body"),
    ('{"choices": [{"message": {"content": "fine"}}], "n": 1' + "0" * 5000 + "}", "broken_body"),
    (f"data: {json.dumps(completion())}\n\ndata: [DONE]", "broken_body"),
    (": OPENROUTER PROCESSING\n\n", "broken_body"),
    ("event: message\ndata: {}", "broken_body"),
    ("Internal Server Error", "broken_body"),
    ({**completion(), "choices": "fine"}, "broken_body"),
    ({**completion(), "choices": {"message": {"content": "fine"}}}, "broken_body"),
    ({**completion(), "choices": ["fine"]}, "broken_body"),
    ("<!doctype html><html>Welcome</html>", "html"),
    ("\ufeff\n <html>Welcome</html>", "html"),
    ({**completion(), "choices": None}, "empty"),
    ({**completion(), "choices": []}, "empty"),
    ({**completion(), "choices": [None]}, "empty"),
    ({**completion(), "choices": [{"message": None}]}, "empty"),
    ({**completion(), "choices": [{"message": "fine"}]}, "empty"),
    (completion(None), "empty"),
    (completion(" \n"), "empty"),
    (completion(7), "empty"),
    (completion([]), "empty"),
    (completion([{"type": "image_url"}, None, [["x"]]]), "empty"),
    (completion(None, message={"reasoning": "First I look."}), "empty"),
    (completion("", message={"reasoning_content": "First I look."}), "empty"),
    (completion(None, "tool_calls", message={"tool_calls": [{"id": 1}]}), "empty"),
    ({"error": CODED}, "rate_limit"),
    ([{"error": CODED}], "rate_limit"),
    ({"error": {**CODED, "code": "429"}}, "rate_limit"),
    (
        {"error": {"message": "busy", "metadata": {"error_type": "rate_limit_exceeded"}}},
        "rate_limit",
    ),
    ({"error": "busy", "status": 429}, "rate_limit"),
    ({"error": True, "message": "busy"}, "error_body"),
    ({"error": ["busy"]}, "error_body"),
    ({"error": "busy", "choices": None}, "error_body"),
    ({"detail": "busy"}, "error_body"),
    ({"object": "error", "message": "busy", "code": 503}, "overloaded"),
    ({**completion(), "error": CODED}, "rate_limit"),
    (completion("half", "error"), "error_body"),
    (completion("half", "error", error=CODED), "rate_limit"),
    (completion("half", error={"code": 502, "message": "gone"}), "server"),
    (completion("half", error={"code": None, "message": "gone"}), "error_body"),
]


@pytest.mark.parametrize(("body", "kind"), NO_ANSWERS)
def test_what_is_no_answer_has_its_kind(body, kind):
    found = read(body)
    assert isinstance(found, ReplyError), found
    assert found.kind == kind, found


@pytest.mark.parametrize(
    ("error", "end"),
    [
        ({"code": 401, "message": "no key"}, UserError),
        ({"code": 402, "message": "no credit"}, UserError),
        ({"code": 400, "message": "response_format is not supported"}, Unsupported),
    ],
)
def test_an_error_with_status_200_counts_like_one_with_its_own(error, end):
    assert isinstance(read({"error": error}), end)


OBJECT = '{"A": 80, "B": 20}'


@pytest.mark.parametrize(
    "body",
    [
        completion(
            None, "tool_calls", message={"tool_calls": [{"function": {"arguments": OBJECT}}]}
        ),
        completion("I call it.", message={"tool_calls": [{"function": {"arguments": OBJECT}}]}),
        completion("", message={"function_call": {"name": "detect", "arguments": OBJECT}}),
        completion(None, message={"tool_calls": [{"function": {"arguments": {"A": 80, "B": 20}}}]}),
        completion("", message={"reasoning_content": f"First I look. {OBJECT}"}),
        completion(None, message={"reasoning": "x" * 30_000 + f"\n```json\n{OBJECT}\n```"}),
        completion("", message={"reasoning_details": [{"text": "First. "}, {"text": OBJECT}]}),
        completion({"A": 80, "B": 20}),
    ],
)
def test_an_object_is_read_wherever_a_server_puts_it(body):
    reply = read(body)
    assert isinstance(reply, Reply), reply
    assert parse_scores(reply.text, ["A", "B"]) == {"A": 80, "B": 20}


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning": f"In the form {OBJECT}? I will look first."},
        {"tool_calls": [{"function": {"name": "look", "arguments": "at A"}}]},
        {"tool_calls": "none", "function_call": 7},
    ],
)
def test_a_form_in_the_midst_of_thoughts_is_no_answer(message):
    assert read(completion("", message=message)).kind == "empty"


def test_thoughts_that_were_cut_are_no_answer():
    reply = read(completion("", "length", message={"reasoning": f"Say {OBJECT}"}))
    assert (reply.text, reply.finish_reason) == ("", "length")


def test_a_model_that_only_thought_is_told_so_and_what_it_cost():
    found = read(completion("", message={"reasoning": "First I look."}))
    assert "--reasoning none" in found.message
    assert found.usage == Usage(100, 20, 0.25)


def test_half_an_answer_with_an_error_tells_what_was_billed():
    assert read(completion("half", "error", error=CODED)).usage.usd == 0.25
    assert read({"error": CODED}).usage.usd == 0


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, (0, 0, math.nan)),
        ([], (0, 0, math.nan)),
        ({"prompt_tokens": "12", "completion_tokens": 3.0, "cost": "0.5"}, (12, 3, 0.5)),
        ({"prompt_tokens": -5, "completion_tokens": None, "cost": -0.5}, (0, 0, math.nan)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "cost": 0}, (9, 1, 0.0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "cost": None}, (9, 1, math.nan)),
        ({"prompt_tokens": 10**300, "completion_tokens": 1e300, "cost": 1e300}, (0, 0, math.nan)),
        ({"prompt_tokens": True, "completion_tokens": [], "cost": "free"}, (0, 0, math.nan)),
        ({"prompt_tokens": math.nan, "completion_tokens": math.inf, "cost": math.nan},) * 2,
    ],
)
def test_usage_is_counted_as_far_as_it_makes_sense(usage, counted):
    n_prompt, n_completion, usd = (0, 0, math.nan) if usage is counted else counted
    used = read(completion(usage=usage)).usage
    assert (used.prompt_tokens, used.completion_tokens) == (n_prompt, n_completion)
    assert used.usd == usd or (math.isnan(used.usd) and math.isnan(usd))


@pytest.mark.parametrize("name", [None, "", 7, ["x"], {"id": "x"}])
def test_a_model_that_does_not_say_its_name_is_the_one_that_was_asked(name):
    reply = read({**completion(), "model": name, "provider": name})
    assert (reply.model, reply.provider) == ("asked/model", None)
