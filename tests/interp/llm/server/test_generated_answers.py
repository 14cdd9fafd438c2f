"""20,000 generated answers and bodies end in our types."""

import json
import math
import random
import string
from collections import Counter
from functools import partial

import pytest

from interp.explain.answer import parse_explain
from interp.llm.server.chat_format import read_body
from interp.llm.server.dialect import Unsupported
from interp.llm.types import Reply, ReplyError, Usage
from interp.score.answer import parse_scores
from sae.core.errors import UserError
from tests.support.servers.bodies import completion

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


GRADES = ("grade", "score", "rating")
PLAIN = [
    lambda n, rng: n,
    lambda n, rng: str(n),
    lambda n, rng: f"{n}%",
    lambda n, rng: f"{n}/100",
    lambda n, rng: f"{n} out of 100",
    lambda n, rng: {rng.choice(GRADES): n, "why": "it is red"},
]


def shaped(numbers: dict, rng: random.Random):
    """The same grades in a form that models and gateways give them."""
    entries = [{"image": code, rng.choice(GRADES): n} for code, n in numbers.items()]
    rng.shuffle(entries)
    forms = [
        {**numbers, "reasoning": "because", "Z": 3},
        {f"{rng.choice(('picture ', 'Image_', '('))}{code}": n for code, n in numbers.items()},
        entries,
        [{code: n} for code, n in numbers.items()],
        list(numbers.items()),
    ]
    in_order = [] if isinstance(numbers["A"], dict) else [list(numbers.values())]
    value = rng.choice((*forms, *in_order))
    key = rng.choice((None, "scores", "answer", "result"))
    if key is None:
        return [value] if isinstance(value, dict) and rng.random() < 0.5 else value
    return {key: value}


def said(rng: random.Random) -> str:
    """What a model may write."""
    numbers = {code: rng.choice(NUMBERS) for code in CODES}
    levels = {code: rng.randint(0, 100) for code in CODES}
    explanation = {**EXPLANATION, "exceptions": rng.choices("ABCDab", k=2)}
    value = rng.choice((SCORES, levels, levels, numbers, EXPLANATION, explanation))
    if isinstance(value.get("A"), int) and rng.random() < 0.4:
        value = shaped({code: rng.choice(PLAIN)(n, rng) for code, n in value.items()}, rng)
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
    said = [score for score in scores.values() if score is not None]
    assert len(said) >= len(CODES) / 2
    assert all(type(score) is float and 0 <= score <= 100 for score in said)
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
    assert isinstance(found, Reply | ReplyError | UserError | Unsupported)
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


SPOILT = [
    lambda text: text.replace("50", "101"),
    lambda text: text.replace("50", "-50"),
    lambda text: text.replace("50", "NaN"),
    lambda text: text.replace('"50', '"NaN').replace("50", "1e999"),
    lambda text: text.replace("50", "true").replace('"true', '"yes'),
    lambda text: text.replace('"B', '"A').replace("(B", "(A").replace("e B", "e A"),
]


def test_other_forms_of_the_same_grades_are_read_alike_and_spoilt_ones_never():
    rng = random.Random(2)
    for _ in range(4_000):
        numbers = {code: rng.choice((5, 17, 42, 80, 100)) for code in CODES} | {"C": 50}
        write = rng.choice(PLAIN)
        text = json.dumps(shaped({code: write(n, rng) for code, n in numbers.items()}, rng))
        assert parse_scores(text, CODES) == numbers, text
        assert list(parse_scores(text, CODES)) == CODES
        spoil = rng.choice(SPOILT)
        spoilt = spoil(text)
        if spoilt != text:
            with pytest.raises(ReplyError):
                parse_scores(spoilt, CODES)


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
