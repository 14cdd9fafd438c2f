import json
import random
import signal
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.questions import ReplyError
from interp.replies import (
    detect_schema,
    explain_schema,
    parse_explain,
    parse_object,
    parse_scores,
)

CODES = list("ABC")


def explain_values(**changes):
    return {
        "seen": {"A": "round", "B": "round", "C": "square"},
        "candidates": [{"level": "mark", "text": "round mark", "fits": ["A", "b"]}],
        "verdict": "single",
        "label": "round mark",
        "second_label": None,
        "level": "mark",
        "description": "A round mark.",
        "exceptions": ["C"],
        "confidence": 80,
        **changes,
    }


def kind_of(call, *args, **kwargs):
    with pytest.raises(ReplyError) as caught:
        call(*args, **kwargs)
    return caught.value.kind


def every_object(schema):
    if schema.get("type") == "object":
        yield schema
        for inner in schema["properties"].values():
            yield from every_object(inner)
    if schema.get("type") == "array":
        yield from every_object(schema["items"])


@pytest.mark.parametrize(
    "schema", [detect_schema(CODES), explain_schema(CODES, ["N"], region=True)]
)
def test_schemas_are_strict_and_without_range_keywords(schema):
    for inner in every_object(schema):
        assert inner["additionalProperties"] is False
        assert inner["required"] == list(inner["properties"])
    text = json.dumps(schema)
    assert not any(word in text for word in ("minimum", "maximum", "minItems", "maxLength"))


def test_detect_wants_one_integer_per_letter():
    assert detect_schema(["A"])["properties"] == {"A": {"type": "integer"}}


def test_evidence_stands_before_the_label():
    fields = explain_schema(CODES, ["N"])["required"]
    assert fields.index("seen") < fields.index("candidates") < fields.index("label")
    assert "second_set" in fields
    assert "second_set" not in explain_schema(CODES)["required"]


@pytest.mark.parametrize(
    "text",
    [
        '{"A": 1, "B": 20, "C": 100}',
        '\ufeff{"A": 1, "B": 20, "C": 100}',
        '```json\n{"A": 1, "B": 20, "C": 100}\n```',
        'Sure! {"A": 1, "B": 20, "C": 100} I hope this helps.',
        '{"A": 1, "B": 20, "C": 100,}',
        "{'A': 1, 'B': 20, 'C': 100}",
        '{"a": 1, "b": 20, "c": 100}',
        '{"C": 100, "B": 20, "A": 1}',
        '{"A": "1%", "B": "20 %", "C": "100%"}',
        '{"A": "1", "B": "20", "C": "100"}',
        '{"A": 0.01, "B": 0.2, "C": 1.0}',
        '{"A": 1.0, "B": 20.0, "C": 100.0}',
    ],
)
def test_scores_are_read_in_the_order_of_the_letters(text):
    assert list(parse_scores(text, CODES).items()) == [("A", 1), ("B", 20), ("C", 100)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "not_json"),
        ("I like A best.", "not_json"),
        ("}{", "not_json"),
        ('{"A": 1, "B": 2, "C": 3', "not_json"),
        ("[1, 2, 3]", "not_json"),
        ('{"A": 1, "A": 2, "B": 3, "C": 4}', "not_json"),
        ('{"A": NaN, "B": 3, "C": 4}', "not_json"),
        ('{"A": 1, "B": 2}', "wrong_keys"),
        ('{"A": 1, "B": 2, "C": 3, "D": 4}', "wrong_keys"),
        ('{"A": 1, "a": 2, "B": 3, "C": 4}', "wrong_keys"),
        ('{"A": 1, "B": 2, "C": 101}', "invalid"),
        ('{"A": -1, "B": 2, "C": 3}', "invalid"),
        ('{"A": 1e999, "B": 2.0, "C": 3.0}', "invalid"),
        ('{"A": 1' + "0" * 4000 + ', "B": 2, "C": 3}', "invalid"),
        ('{"A": 1' + "0" * 5000 + ', "B": 2, "C": 3}', "not_json"),
        ('{"A": "85%", "B": 20, "C": 3}', "invalid"),
        ('{"A": 0.85, "B": 20, "C": 3}', "invalid"),
        ('{"A": true, "B": 20, "C": 3}', "invalid"),
        ('{"A": null, "B": null, "C": null}', "invalid"),
        ('{"A": [1], "B": [2], "C": [3]}', "invalid"),
        ('{"A": "\\ud800", "B": "1", "C": "2"}', "not_json"),
        ("[" * 50_000 + '{"A":' * 50_000 + "}", "not_json"),
    ],
)
def test_each_fault_of_scores_has_its_kind(text, kind):
    assert kind_of(parse_scores, text, CODES) == kind


def test_apostrophes_survive_the_repair_of_a_comma():
    assert parse_object('{"a": "dog\'s ear", "b": [1, 2,],}') == {"a": "dog's ear", "b": [1, 2]}
    assert parse_object("{'a': 'say \"no\"', 'b': 'it\\'s'}") == {"a": 'say "no"', "b": "it's"}


def test_an_explanation_is_read_with_letters_in_upper_case():
    answer = parse_explain(json.dumps(explain_values()), CODES)
    assert answer.label == "round mark"
    assert answer.candidates[0].fits == ["A", "B"]
    assert answer.second_set == ""


def test_contrast_and_region_are_wanted_exactly_when_asked_for():
    text = json.dumps(explain_values(second_set="squares", region="inside"))
    assert parse_explain(text, CODES, ["N"], region=True).region == "inside"
    assert kind_of(parse_explain, text, CODES) == "wrong_keys"
    assert kind_of(parse_explain, json.dumps(explain_values()), CODES, ["N"]) == "wrong_keys"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"label": "  "}, "invalid"),
        ({"label": None}, "invalid"),
        ({"verdict": "maybe"}, "invalid"),
        ({"confidence": 101}, "invalid"),
        ({"confidence": "high"}, "invalid"),
        ({"seen": {"A": "x", "B": "y"}}, "wrong_keys"),
        ({"seen": {"A": "x", "B": "y", "C": "z", "D": "w"}}, "wrong_keys"),
        ({"exceptions": ["Z"]}, "wrong_keys"),
        ({"candidates": [{"level": "mark", "text": "x", "fits": ["N"]}]}, "wrong_keys"),
        ({"candidates": "none"}, "invalid"),
        ({"more": 1}, "wrong_keys"),
    ],
)
def test_each_fault_of_an_explanation_has_its_kind(changes, kind):
    assert kind_of(parse_explain, json.dumps(explain_values(**changes)), CODES) == kind


def test_a_fault_is_named_so_that_it_can_be_quoted():
    with pytest.raises(ReplyError, match="lacks the key 'B'"):
        parse_scores('{"A": 1, "C": 3}', CODES)


JSONISH = st.text(alphabet="{}[]\",:'\\ABCabc0159.%-\n \u00e9`truefalsn", max_size=200)


@settings(max_examples=500, deadline=None)
@given(st.one_of(JSONISH, st.text(max_size=80)))
def test_nothing_but_reply_error_leaves_the_parsers(text):
    for parse in (parse_scores, parse_explain):
        try:
            parsed = parse(text, CODES)
        except ReplyError:
            continue
        assert list(parsed) == CODES if parse is parse_scores else parsed.label


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 10**6))
def test_a_mutated_answer_is_read_right_or_refused(seed):
    rng = random.Random(seed)
    text = list('{"A": 10, "B": 20, "C": 30}')
    for _ in range(rng.randint(1, 4)):
        text[rng.randrange(len(text))] = rng.choice(string.printable)
    try:
        scores = parse_scores("".join(text), CODES)
    except ReplyError:
        return
    assert list(scores) == CODES
    assert all(0 <= score <= 100 for score in scores.values())


@pytest.mark.parametrize("unit", ["{", "'", '"', '\\"', ",   ", "{'a':", "`", "[[{", "{,}", ", "])
def test_the_repair_tries_no_position_twice(unit, monkeypatch):
    """A pattern that looked at pairs of positions would need hours here; a linear one is done."""
    monkeypatch.setattr("interp.replies._LONGEST_REPAIR", 10**7)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the repair is not linear"))
    signal.alarm(60)
    try:
        assert kind_of(parse_object, ("{" + unit * 200_000)[:200_000] + "}") == "not_json"
    finally:
        signal.alarm(0)
