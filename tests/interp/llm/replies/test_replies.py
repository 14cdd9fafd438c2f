import contextlib
import json
import signal

import pytest

from interp.explain.answer import explain_schema, parse_explain
from interp.llm.replies.schemas import parse_object
from interp.llm.types import ReplyError
from interp.score.answer import detect_schema, parse_scores

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
        '{"Picture A": 1, "picture b": 20, "C:": 100}',
        '// mine\n{"A": 1, /* sure */ "B": 20, // half\n "C": 100, // last\n}',
        '{"A": "\\u0031", "B": "20", "C": "100"}',
        '<think>{"A": 9, "B": 9, "C": 9} is wrong</think>{"A": 1, "B": 20, "C": 100}',
        'is it {"A": 9, "B": 9, "C": 9}? no</think>\n{"A": 1, "B": 20, "C": 100}',
        'From {faint} to {clear}: {"A": 1, "B": 20, "C": 100} (scale {0-100})',
        '{"A": 9, "B": 9, "C": 9} Wait: {"A": 1, "B": 20, "C": 100}',
        '{"A": 9, "B": 9, "C": 9} Wait: {"A": 1, "B": 20, "C": 100,} {"done": true}',
        '{"A": <score>, "B": <score>} as in: {"A": 1, "B": 20, "C": 100}',
        '[{"A": 1, "B": 20, "C": 100}]',
        '{"A":' + " " * 10_000 + '1, "B": 20, "C": 100}',
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
        ("[1, 2, 3]", "not_json"),  # places in a ranking?
        ("[2, 0, 1]", "not_json"),
        ("I looked at [80, 20, 30].", "not_json"),
        ("[80, 20]", "not_json"),
        ("[80, 20, 30, 40]", "not_json"),
        ("[80, true, 30]", "not_json"),
        ("[80, NaN, 30]", "not_json"),
        ("[80, -1, 30]", "invalid"),
        ('{"A": 1, "A": 2, "B": 3, "C": 4}', "not_json"),
        ('{"A": NaN, "B": 3, "C": 4}', "not_json"),
        ('{"A": 1}', "wrong_keys"),
        ('{"B": 2, "C": 3, "D": 4}', "wrong_keys"),  # letters that slipped by one
        ('[{"image": "A", "grade": 80}, {"image": "a", "grade": 20}]', "wrong_keys"),
        (
            '[{"image": 2, "grade": 80}, {"image": 1, "grade": 9}, {"image": 3, "grade": 5}]',
            "wrong_keys",
        ),
        ('{"ranking": [30, 10, 20]}', "wrong_keys"),
        ('{"first": {"A": 1, "B": 2, "C": 3}, "then": {"A": 4, "B": 5, "C": 6}}', "wrong_keys"),
        ('{"A": {"grade": 80, "score": 20}, "B": 20, "C": 3}', "invalid"),
        ('{"A": {"low": 20, "high": 80}, "B": 20, "C": 3}', "invalid"),
        ('{"A": {"grade": true}, "B": 20, "C": 3}', "invalid"),
        ('{"A": "101/100", "B": "20/100", "C": "3/100"}', "invalid"),
        ('{"A": "80/7", "B": "20/7", "C": "3/7"}', "invalid"),
        ('{"A": "-8", "B": "20", "C": "3"}', "invalid"),
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
        ('{"A": "\ud800", "B": "1", "C": "2"}', "not_json"),
        ('{"A":' * 3000 + "1" + "}" * 3000, "not_json"),
        ('<think>{"A": 1, "B": 2, "C": 3}', "not_json"),
        ('<think>{"A": 1, "B": 2, "C": 3}</think> I cannot say.', "not_json"),
        ('{"A": 1, "B": 2, "C": 3} no: {"A": 1, "A": 2, "B": 3, "C": 4}', "not_json"),
        ('{"A": 1, "B": 2, "C": 3} no: {"A": 5, "B": , "C": 4}', "not_json"),
        ('{"note": {"A": 1, "B": 2, "C": 3}, "A": 5, "B"', "not_json"),
        ('{"note": {"A": 1, "B": 2, "C": 3}, "A": 5}', "wrong_keys"),
        ('{"A": 1, "B": 2, "C": 3, "why": "' + "x" * 20_000 + '"}', "not_json"),
        ('{"A": True, "B": 20, "C": 3}', "invalid"),
        ("[" * 50_000 + '{"A":' * 50_000 + "}", "not_json"),
    ],
)
def test_each_fault_of_scores_has_its_kind(text, kind):
    assert kind_of(parse_scores, text, CODES) == kind


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "because", "A": 80, "B": 20, "C": 100}',
        '{"A": 80, "B": 20, "C": 100, "D": 4}',
        '{"A": "80/100", "B": "20/100", "C": "100/100"}',
        '{"A": "8/10", "B": "2 / 10", "C": "10 out of 10"}',
        '{"A": "80.0%", "B": "20%", "C": "100%"}',
        '{"A": 80, "B": "20", "C": 100.0}',
        '{"A": {"grade": 80}, "B": {"Score": 20, "why": "red"}, "C": {"fits": 100}}',
        '{"(A)": 80, "image b": 20, "Tile_C": 100}',
        '{"scores": {"A": 80, "B": 20, "C": 100}}',
        '{"seen": {"A": "red", "B": "blue"}, "scores": {"A": 80, "B": 20, "C": 100}}',
        '{"type": "function", "function": {"name": "detect", "arguments": '
        '"{\\"A\\": 80, \\"B\\": 20, \\"C\\": 100}"}}',
        '"{\\"A\\": 80, \\"B\\": 20, \\"C\\": 100}"',
        '[{"image": "A", "grade": 80}, {"image": "C", "grade": 100}, {"image": "B", "grade": 20}]',
        'These: {"letter": "Picture A", "score": 80}, {"letter": "b", "score": 20}, '
        '{"letter": "C", "score": 100}.',
        '{"grades": [{"id": "A", "fit": 80}, {"id": "B", "fit": 20}, {"id": "C", "fit": 100}]}',
        '[{"A": 80}, {"B": 20}, {"C": 100}]',
        '{"A": 80}\n{"B": 20}\n{"C": 100}',
        '[["A", 80], ["B", 20], ["C", 100]]',
        "[80, 20, 100]",
        "```json\n[80, 20, 100,]\n```",
        "<think>[1, 2, 3]? no</think>[80, 20, 100]",
        '["80%", "20%", "100%"]',
        '{"scores": [80, 20, 100]}',
        '{"result": {"grades": [0.8, 0.2, 1]}}',
        '{"A": 0.8, "B": 0.2, "C": 1}',
    ],
)
def test_what_is_usable_in_a_judges_answer_is_used(text):
    assert list(parse_scores(text, CODES).items()) == [("A", 80), ("B", 20), ("C", 100)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"A": 80, "C": 3}', [80, None, 3]),
        ('{"A": 80, "B": null, "C": 3}', [80, None, 3]),
        ('{"A": 80, "B": "n/a", "C": 3}', [80, None, 3]),
        ('{"A": 80, "B": {"grade": null}, "C": 3}', [80, None, 3]),
        ('[{"image": "A", "grade": 80}, {"image": "C", "grade": 3}]', [80, None, 3]),
        ("[80, null, 3]", [80, None, 3]),
        ('{"A": 0.8, "C": 1}', [80, None, 100]),
        ('{"A": 9, "B": 9} no: {"A": 80, "B": null, "C": 3}', [80, None, 3]),
    ],
)
def test_one_letter_without_a_number_is_one_missing_answer(text, wanted):
    assert list(parse_scores(text, CODES).values()) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"A": 0, "B": 1, "C": 0.5}', [0, 100, 50]),
        ('{"A": 0, "B": 1, "C": 1}', [0, 100, 100]),
        ('{"A": 0, "B": 0, "C": 0}', [0, 0, 0]),
        ('{"A": 0, "B": 1, "C": 2}', [0, 1, 2]),
        ('{"A": 80, "B": 99.5, "C": 1}', [80, 99.5, 1]),
    ],
)
def test_0_and_1_are_shares_where_nothing_is_above_1(text, wanted):
    assert list(parse_scores(text, CODES).values()) == wanted


@pytest.mark.parametrize(
    "wrap",
    [
        lambda values: {**values, "reasoning": "because", "Label (final)": "x"},
        lambda values: {"answer": values},
        lambda values: [values],
        lambda values: {"name": "explain", "arguments": json.dumps(values)},
        lambda values: json.dumps(values),
        lambda values: {key.replace("_", " ").title(): value for key, value in values.items()},
        lambda values: {**values, "verdict": "Single", "level": " MARK"},
        lambda values: {**values, "seen": {**values["seen"], "D": "not asked"}},
        lambda values: {key: v for key, v in values.items() if key != "second_label"},
        lambda values: {**values, "candidates": [{**values["candidates"][0], "why": "seen"}]},
    ],
)
def test_what_is_usable_in_an_explanation_is_used(wrap):
    plain = parse_explain(json.dumps(explain_values()), CODES)
    assert parse_explain(json.dumps(wrap(explain_values())), CODES) == plain


def test_apostrophes_survive_the_repair_of_a_comma():
    assert parse_object('{"a": "dog\'s ear", "b": [1, 2,],}') == {"a": "dog's ear", "b": [1, 2]}
    assert parse_object("{'a': 'say \"no\"', 'b': 'it\\'s'}") == {"a": 'say "no"', "b": "it's"}


def test_pythons_constants_and_line_breaks_in_texts_are_understood():
    text = "{'a': None, 'b': True, 'c': False, 'd': 'None of\nthem'}"
    assert parse_object(text) == {"a": None, "b": True, "c": False, "d": "None of\nthem"}


def test_a_key_that_stands_twice_is_said_so():
    with pytest.raises(ReplyError, match="a key stands twice"):
        parse_scores('{"A": 1, "A": 2, "B": 3, "C": 4}', CODES)


def test_no_control_character_is_left_in_what_is_shown():
    values = explain_values(
        label=" round\x00\x1b mark\n\u202e ", description="a\x7f\tb", second_label="\x00"
    )
    values["seen"]["A"] = "a\u2028b"
    values["candidates"][0]["text"] = "\ufeffc\u0085d"
    answer = parse_explain(json.dumps(values), CODES)
    assert (answer.label, answer.description, answer.second_label) == ("round mark", "a b", None)
    assert (answer.seen["A"], answer.candidates[0].text) == ("a b", "c d")


@pytest.mark.parametrize(("said", "meant"), [(0.8, 80), ("80%", 80), ("7", 7), (7.4, 7), (1, 1)])
def test_confidence_is_read_in_each_form(said, meant):
    text = json.dumps(explain_values(confidence=said))
    assert parse_explain(text, CODES).confidence == meant


def test_a_letter_that_is_named_twice_counts_once():
    answer = parse_explain(json.dumps(explain_values(exceptions=["a", "A", "Picture B"])), CODES)
    assert answer.exceptions == ["A", "B"]


def test_an_explanation_is_read_with_letters_in_upper_case():
    answer = parse_explain(json.dumps(explain_values()), CODES)
    assert answer.label == "round mark"
    assert answer.candidates[0].fits == ["A", "B"]
    assert answer.second_set == ""


def test_contrast_and_region_are_wanted_exactly_when_asked_for():
    text = json.dumps(explain_values(second_set="squares", region="inside"))
    assert parse_explain(text, CODES, ["N"], region=True).region == "inside"
    assert parse_explain(text, CODES).region == ""
    assert kind_of(parse_explain, json.dumps(explain_values()), CODES, ["N"]) == "wrong_keys"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"label": "  "}, "invalid"),
        ({"label": "\u200b..."}, "invalid"),
        ({"label": None}, "invalid"),
        ({"verdict": "maybe"}, "invalid"),
        ({"confidence": 101}, "invalid"),
        ({"confidence": "high"}, "invalid"),
        ({"confidence": True}, "invalid"),
        ({"confidence": None}, "invalid"),
        ({"seen": ["x", "y", "z"]}, "invalid"),
        ({"seen": {"A": "x", "a": "y", "B": "z", "C": "w"}}, "wrong_keys"),
        ({"seen": {"A": "x", "B": 1, "C": "w"}}, "invalid"),
        ({"seen": {"A": "x", "B": "y"}}, "wrong_keys"),
        ({"exceptions": ["Z"]}, "wrong_keys"),
        ({"candidates": [{"level": "mark", "text": "x", "fits": ["N"]}]}, "wrong_keys"),
        ({"candidates": "none"}, "invalid"),
    ],
)
def test_each_fault_of_an_explanation_has_its_kind(changes, kind):
    assert kind_of(parse_explain, json.dumps(explain_values(**changes)), CODES) == kind


def test_a_fault_is_named_so_that_it_can_be_quoted():
    with pytest.raises(ReplyError, match="lacks the key 'B'"):
        parse_scores('{"A": 1}', CODES)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "'",
        '"',
        '\\"',
        ",   ",
        "{'a':",
        "`",
        "[[{",
        "{,}",
        ", ",
        "//",
        "/*",
        "True",
        ",//\n",
        "</think>",
        "{'',",
    ],
)
def test_the_repair_tries_no_position_twice(unit, monkeypatch):
    """A pattern that looked at pairs of positions would need hours here; a linear one is done."""
    for limit in ("_LONGEST", "_MOST_REPAIRS", "_MOST_OBJECTS"):
        monkeypatch.setattr(f"interp.llm.replies.json_text.{limit}", 10**7)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the repair is not linear"))
    signal.alarm(60)
    try:
        with contextlib.suppress(ReplyError):
            parse_object(("{" + unit * 200_000)[:200_000] + "}")
    finally:
        signal.alarm(0)
