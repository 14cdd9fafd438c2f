"""interp/records.py: what crosses a border comes back from JSON as it was."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from interp.records.codec import from_json, to_json
from interp.records.split import split_of
from interp.records.types import Evidence, Example, Explanation, LatentStats, Score, Verdict
from sae.core.errors import UserError

EXAMPLE = Example(7, "score", "top", 0, -1, 41, "ab", "sketch", "cat", "c/1.png", 2.5, b"\x00\xff")
SILENT = dataclasses.replace(EXAMPLE, kind="silent", act=0.0, heat=None)
STATS = LatentStats(
    latent=7,
    status="live",
    n_active=3,
    frequency=0.01,
    mean_act=1.5,
    max_act=2.5,
    hist=(1, *[0] * 30, 2),
    domain_rate={"sketch": 0.25, "photo": math.nan},
    sketch_share=math.nan,
    class_entropy=0.9,
    top_classes=(("cat", 2), ("wheel", 1)),
)
EXPLANATION = Explanation(
    latent=7,
    label="wheels",
    second_label=None,
    description="Round things.",
    verdict="single",
    level="object",
    confidence=80,
    failure=None,
    lint=("too_long",),
    model="m",
    provider=None,
    prompt="",
    codes={"A": "ab"},
    candidates=("wheels", "rings"),
    calls=(),
    usd=0.25,
)
VERDICT = Verdict("ab", 41, True, 2.5, 4, "quantile", "sketch", None)
SCORE = Score(
    latent=7,
    label="wheels",
    model="judge",
    explainer="m",
    prompt="f",
    verdicts=(VERDICT, dataclasses.replace(VERDICT, score=70.0)),
    auroc=0.75,
    auroc_low=0.5,
    auroc_high=0.9,
    auroc_easy=0.8,
    auroc_hard=math.nan,
    balanced_accuracy=0.7,
    spearman=math.nan,
    n_positive=2,
    n_negative=0,
    n_missing=1,
    failure=None,
    calls=("k",),
    usd=0.0,
)
RECORDS = [EXAMPLE, SILENT, STATS, Evidence(STATS, (EXAMPLE, SILENT)), EXPLANATION, VERDICT, SCORE]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_from_strict_json_as_it_was(record: Any) -> None:
    text = json.dumps(to_json(record), allow_nan=False)
    back = from_json(type(record), json.loads(text))
    assert repr(back) == repr(record)  # NaN is not equal to itself, but reads the same


def test_nan_is_null_and_a_missing_answer_stays_none() -> None:
    values = to_json(SCORE)
    assert values["auroc_hard"] is None
    assert values["verdicts"][0]["score"] is None
    back = from_json(Score, values)
    assert math.isnan(back.auroc_hard)
    assert back.verdicts[0].score is None


def test_a_field_that_is_missing_or_unknown_is_named() -> None:
    values = to_json(VERDICT)
    with pytest.raises(UserError, match="Verdict has the unknown field 'colour'"):
        from_json(Verdict, {**values, "colour": 1})
    del values["truth"]
    with pytest.raises(UserError, match="Verdict lacks the field 'truth'"):
        from_json(Verdict, values)


def spoilt(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The values without a field, with one more, and with one of a wrong kind, in turn."""
    yield {**values, "colour": 1}
    for name in values:
        yield {key: value for key, value in values.items() if key != name}
        for wrong in (None, 3, "", "x", [], [None], [[]], [["cat"]], {}, {"a": None}):
            yield {**values, name: wrong}


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_compiled_readers_and_writers_equal_those_that_look_at_every_type_anew(record: Any) -> None:
    cls = type(record)
    values = to_json(record)
    assert values == plain_slowly(dataclasses.asdict(record))
    assert list(values) == [field.name for field in dataclasses.fields(cls)]
    for case in (values, dict(reversed(values.items())), *spoilt(values)):
        assert outcome(from_json, cls, case) == outcome(from_json_slowly, cls, case), case


def outcome(read: Callable[[Any, Any], Any], cls: type[Any], values: Any) -> str:
    """The record, or else the error and what it says."""
    try:
        return repr(read(cls, values))
    except (AttributeError, TypeError, ValueError, UserError) as error:
        return repr(error)


def plain_slowly(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {key: plain_slowly(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_slowly(item) for item in value]
    return value


def from_json_slowly(cls: type[Any], values: Any) -> Any:
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise UserError(f"a stored {cls.__name__} has the unknown field {name!r}")
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise UserError(f"a stored {cls.__name__} lacks the field {field.name!r}")
    return cls(**{name: typed_slowly(hints[name], value) for name, value in values.items()})


def typed_slowly(hint: Any, value: Any) -> Any:
    args, origin = get_args(hint), get_origin(hint)
    if origin is types.UnionType:
        inner = next(arg for arg in args if arg is not types.NoneType)
        return None if value is None else typed_slowly(inner, value)
    if hint is float:
        return math.nan if value is None else float(value)
    if hint is bytes:
        return base64.b64decode(value)
    if dataclasses.is_dataclass(hint):
        return from_json_slowly(hint, value)
    if origin is dict:
        return {key: typed_slowly(args[1], item) for key, item in value.items()}
    if origin is tuple and args[-1] is Ellipsis:
        return tuple(typed_slowly(args[0], item) for item in value)
    if origin is tuple:
        return tuple(typed_slowly(arg, item) for arg, item in zip(args, value, strict=True))
    return value


@pytest.mark.parametrize(("label", "failure"), [("wheels", "refused"), (None, None)])
def test_an_explanation_has_either_a_label_or_a_failure(
    label: str | None, failure: str | None
) -> None:
    with pytest.raises(ValueError, match="latent 7"):
        dataclasses.replace(EXPLANATION, label=label, failure=failure)
    assert dataclasses.replace(EXPLANATION, label=None, failure="refused").label is None


def test_evidence_gives_one_side_and_kind() -> None:
    evidence = Evidence(STATS, (EXAMPLE, SILENT))
    assert evidence.of("score", "top") == (EXAMPLE,)
    assert evidence.of("explain", "top") == ()


def test_the_split_is_known_even_and_reads_the_first_digits_only() -> None:
    assert split_of("7fffffff" + "f" * 56) == "explain"
    assert split_of("80000000" + "0" * 56) == "score"
    ids = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(10_000)]
    share = sum(split_of(i) == "explain" for i in ids) / len(ids)
    assert share == pytest.approx(0.5, abs=0.02)  # four standard errors
