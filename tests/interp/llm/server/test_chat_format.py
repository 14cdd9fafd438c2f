"""All that a gateway can answer with status 200, by example and 20,000 generated ones."""

import json
import math
import random
import string
from collections import Counter
from functools import partial

import pytest

from interp.explain.answer import parse_explain
from interp.llm.server.chat_format import read_body
from interp.llm.server.errors import FormUnsupported
from interp.llm.types import Reply, ReplyError, Usage
from interp.score.answer import parse_scores
from sae.core.errors import UserError

CODES = list("ABCD")
SCORES = {"A": 10, "B": 0, "C": 100, "D": 55}
EXPLANATION = {
    "seen": dict.fromkeys(CODES, "a round mark"),
    "candidates": [{"level": "mark", "text": "round mark", "fits": ["A", "B"]}],
    "verdict": "single",
    "label": "round mark",
    "second_label": None,
    "level": "mark",
    "description": "A round mark; ovals do not count.",
    "exceptions": ["D"],
    "confidence": 80,
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.25}


def completion(content="fine", reason="stop", usage=USAGE, message=(), **choice):
    said = {"role": "assistant", "content": content, **dict(message)}
    choices = [{"index": 0, "finish_reason": reason, "message": said, **choice}]
    return {"id": "gen-1", "model": "a/b", "provider": "P", "choices": choices, "usage": usage}


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
        ({"code": 400, "message": "response_format is not supported"}, FormUnsupported),
    ],
)
def test_an_error_with_status_200_counts_like_one_with_its_own(error, end):
    assert isinstance(read({"error": error}), end)


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


JUNK = [
    *("{", "}", "[", "]", '"', "'", "\\", ",", ":", "//", "/*", "*/", "```", "<think>", "</think>"),
    *("\x00", "\ufeff", "\ufffd", "\u2028", "\\ud800", "\\u0041", "\\n", "\n", "\ud83d", "é"),
    *("NaN", "Infinity", "-0", "1e999", "0.5", "85%", '"85"', "101", "-1", "null", "True", "None"),
    *('"A"', '"a"', '"Z"', '"Picture A"', '"A": 1,', '{"A": 1}', json.dumps(SCORES), "Sure! "),
]
VALUES = [
    *(
        None,
        True,
        False,
        0,
        -1,
        7,
        0.5,
        1e300,
        -0.0,
        10**30,
        "",
        "x",
        "429",
        "\x00",
        [],
        {},
        [None],
    ),
    *(
        CODES,
        SCORES,
        EXPLANATION,
        {"error": "x"},
        {"text": "x"},
        [{"type": "text", "text": "x"}],
    ),
]
NUMBERS = [0, 1, 50, 100, 101, -1, 0.5, 1.0, 99.9, "7", "85%", True, None, math.inf, 10**25]


def mutated(text: str, rng: random.Random, n: int) -> str:
    """`n` slips: a sign changed, a piece dropped, doubled or moved, junk put in, an end cut off."""
    for _ in range(n):
        at, end = sorted(rng.choices(range(len(text) + 1), k=2))
        end = min(end, at + rng.choice((1, 3, 30)))
        text = rng.choice(
            (
                text[:at] + rng.choice(string.printable) + text[at + 1 :],
                text[:at] + text[end:],
                text[:end] + text[at:],
                text[:at] + rng.choice(JUNK) + text[at:],
                text[:at] + rng.choice(JUNK) + text[end:],
                text[:at] + text[end:] + text[at:end],
                text[:end] if rng.random() < 0.2 else text,
            )
        )
    return text


def disturbed(value, rng: random.Random):
    """The same JSON value with one part of it replaced, dropped or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.25:
        return rng.choice(VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed = value.copy()
    if rng.random() < 0.1:
        moved = changed.pop(key)
        if isinstance(changed, dict) and rng.random() < 0.5:
            changed[rng.choice((str(key).lower(), "Z", "error"))] = moved
    else:
        changed[key] = disturbed(value[key], rng)
    return changed


def said(rng: random.Random) -> str:
    """What a model may write."""
    numbers = {code: rng.choice(NUMBERS) for code in CODES}
    levels = {code: rng.randint(0, 100) for code in CODES}
    explanation = {**EXPLANATION, "exceptions": rng.choices("ABCDab", k=2)}
    value = rng.choice((SCORES, levels, levels, numbers, EXPLANATION, explanation))
    if rng.random() < 0.3:
        value = disturbed(value, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    text = rng.choice((text, text, f"```json\n{text}\n```", f"<think>{text}</think>{text}"))
    text = rng.choice((text, text, str(value), f"So {{this}}: {text} {rng.choice(JUNK)}"))
    return mutated(text, rng, rng.choice((0, 0, 0, 1, 1, 2, 5)))


def sent(content: str, rng: random.Random) -> str:
    """What a gateway may make of it."""
    body = completion(content, rng.choice(("stop", "stop", "length", "error", None)))
    kind = rng.random()
    if kind < 0.2:
        body = disturbed(body, rng)
    elif kind < 0.3:
        body = {"error": disturbed({"code": rng.choice(range(400, 530)), "message": content}, rng)}
    text = json.dumps(body)
    if kind > 0.95:
        text = rng.choice(("<html>", "data: ", "")) + content
    return mutated(text, rng, rng.choice((0, 0, 0, 0, 1, 3)))


def is_content_fault(error: ReplyError) -> bool:
    assert error.kind in ("not_json", "wrong_keys", "invalid")
    assert error.message.isprintable()
    return True


def check_scores(text: str) -> bool:
    try:
        scores = parse_scores(text, CODES)
    except ReplyError as error:
        return not is_content_fault(error)
    assert list(scores) == CODES
    assert all(type(score) is float and 0 <= score <= 100 for score in scores.values())
    return True


def check_explanation(text: str) -> bool:
    try:
        answer = parse_explain(text, CODES)
    except ReplyError as error:
        return not is_content_fault(error)
    assert list(answer.seen) == CODES
    assert answer.label.strip() == answer.label != ""
    assert 0 <= answer.confidence <= 100
    for letters in (answer.exceptions, *(candidate.fits for candidate in answer.candidates)):
        assert set(letters) <= set(CODES)
        assert len(set(letters)) == len(letters)
    answer.model_dump_json().encode()
    return True


def check_body(text: str) -> Reply | None:
    found = read_body(text, {}, "asked/model", "k")
    assert isinstance(found, Reply | ReplyError | UserError | FormUnsupported)
    used = found.usage if isinstance(found, Reply | ReplyError) else Usage(0, 0, 0.0)
    assert min(used.prompt_tokens, used.completion_tokens) >= 0
    assert math.isnan(used.usd) or 0 <= used.usd < math.inf
    if isinstance(found, Reply):
        json.dumps([found.text, found.model, found.provider], ensure_ascii=False).encode()
        return found
    assert str(found).isprintable()
    return None


def test_20_000_generated_answers_end_in_our_types_and_never_in_a_wrong_length():
    rng = random.Random(0)
    ends: Counter[str] = Counter()
    for _ in range(20_000):
        content = said(rng)
        reply = check_body(sent(content, rng))
        read_text = content if reply is None else reply.text
        ends["answers"] += reply is not None
        ends["scores"] += check_scores(read_text)
        ends["explanations"] += check_explanation(read_text)
    assert min(ends.values()) > 2_000, ends  # the mix reaches every end
    assert ends["answers"] < 18_000, ends


WRAPS = [
    "{}",
    "\ufeff{}",
    "```json\n{}\n```",
    "Looking at {{all}} of it: {} I hope that helps {{you}}.",
    "<think>{{'A': 1}} or 'so', it's \" hard</think>\n{}",
    "First {}\nno, finally:\n{}",
    "[{}]",
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("write", [json.dumps, partial(json.dumps, indent=2), str])
def test_what_stands_around_an_answer_never_changes_its_values(wrap, write):
    rng = random.Random(1)
    for _ in range(50):
        wanted = {code: rng.randint(0, 100) for code in CODES}
        first = write({code: rng.randint(0, 100) for code in CODES})
        text = (
            wrap.format(first, write(wanted))
            if wrap.count("{}") == 2
            else wrap.format(write(wanted))
        )
        assert parse_scores(text, CODES) == wanted
