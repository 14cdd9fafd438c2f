"""Equal questions have equal keys, and no others."""

import dataclasses
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from interp.llm.ledger.ledger import key_of, request_of
from interp.llm.types import Picture, Question
from tests.support.interp.ledgers import QUESTION, request

CHANGES = [
    {"system": "look!"},
    {"parts": ("what is it!", Picture(b"PNGDATA", "image/png"))},
    {"parts": ("what is it", Picture(b"PNGDATa", "image/png"))},
    {"parts": (Picture(b"PNGDATA", "image/png"), "what is it")},
    {"schema": {"type": "object", "required": ["B"]}},
    {"schema": None},
    {"max_tokens": 101},
    {"temperature": 0.1},
    {"prompt": "e" * 64},
    {"attempt": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_any_change_of_a_question_changes_the_key(change):
    changed = dataclasses.replace(QUESTION, **change)
    assert key_of(request(changed)) != key_of(request())


def test_model_address_and_parameters_change_the_key():
    keys = {
        key_of(request()),
        key_of(request(model="n")),
        key_of(request(base_url="http://y/v1")),
        key_of(request(reasoning="low")),
    }
    assert len(keys) == 4


PARTS = st.text(max_size=8) | st.builds(
    Picture, st.binary(min_size=1, max_size=8), st.sampled_from(["image/png", "image/jpeg"])
)
QUESTIONS = st.builds(
    Question,
    system=st.text(max_size=8),
    parts=st.lists(PARTS, min_size=1, max_size=4).map(tuple),
    schema=st.none() | st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
    schema_name=st.sampled_from(["explain", "detect"]),
    max_tokens=st.integers(1, 2000),
    temperature=st.floats(0, 2),
    prompt=st.text("0123456789abcdef", min_size=8, max_size=8),
    attempt=st.integers(0, 3),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(QUESTIONS, st.data())
def test_any_single_change_of_a_generated_question_changes_the_key(first, data):
    field = data.draw(st.sampled_from(dataclasses.fields(Question)).map(lambda f: f.name))
    model, url, parameters = "m", "http://x/v1", {"reasoning": "low"}
    second = first
    if field == "parts":
        second = dataclasses.replace(first, parts=one_part_changed(first.parts, data))
    elif field == "about":  # the one field that is no part of the key: change what is around it
        change = data.draw(st.sampled_from(["model", "url", "value", "name", "more"]))
        model = "m" if change != "model" else "m2"
        url = "http://x/v1" if change != "url" else "http://x/v2"
        parameters = {
            "value": {"reasoning": "high"},
            "name": {"reasonin": "low"},
            "more": {"reasoning": "low", "provider": {"only": ["A"]}},
        }.get(change, parameters)
    else:
        other = getattr(data.draw(QUESTIONS), field)
        assume(other != getattr(first, field))
        second = dataclasses.replace(first, **{field: other})
    assert key_of(request_of(second, model, url, parameters)) != key_of(
        request_of(first, "m", "http://x/v1", {"reasoning": "low"})
    )


def one_part_changed(parts, data):
    """One part taken out, a letter added, a bit flipped, or the other type of image."""
    place = data.draw(st.integers(0, len(parts) - 1))
    part = parts[place]
    if data.draw(st.booleans()):
        return parts[:place] + parts[place + 1 :]
    if isinstance(part, str):
        return (*parts[:place], part + "x", *parts[place + 1 :])
    if data.draw(st.booleans()):
        other = {"image/png": "image/jpeg", "image/jpeg": "image/png"}[part.media_type]
        return (*parts[:place], Picture(part.data, other), *parts[place + 1 :])
    at, bit = data.draw(st.integers(0, len(part.data) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(part.data)
    flipped[at] ^= 1 << bit
    return (*parts[:place], Picture(bytes(flipped), part.media_type), *parts[place + 1 :])


@settings(max_examples=400, deadline=None)
@given(QUESTIONS, st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
def test_the_order_of_keys_and_white_space_do_not_change_the_key(asked, parameters):
    made = request(asked, **{f"x{name}": value for name, value in parameters.items()})
    assert key_of(json.loads(json.dumps(backwards(made), indent=3))) == key_of(made)


def backwards(value):
    """The same JSON value with the keys of all its objects in the opposite order."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(each) for each in value] if isinstance(value, list) else value
