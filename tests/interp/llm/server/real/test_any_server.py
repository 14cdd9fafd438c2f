"""Our client against real servers: `pytest -m server`, minutes; extra `server`, npm for aimock.

`transformers serve` is started here with a tiny model that really reads colours. The tests of the
first half run against any other server of that model as well
(python tests/support/servers/tiny_vlm.py OUT --fit):

    INTERP_TEST_BASE_URL=http://127.0.0.1:8080/v1 INTERP_TEST_MODEL=tiny pytest -m server

for instance a llama.cpp that serves it as GGUF, with its vision part in a second file:

    convert_hf_to_gguf.py OUT --outfile tiny.gguf
    convert_hf_to_gguf.py OUT --mmproj --outfile mmproj.gguf
    llama-server -m tiny.gguf --mmproj mmproj.gguf --jinja --alias tiny --port 8080"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import math
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from interp.explain.explainer import VlmExplainer
from interp.llm.ledger.ledger import Ledger
from interp.llm.replies.schemas import parse_object
from interp.llm.server.client import ChatModel
from interp.llm.server.preflight import check_sight
from interp.llm.types import Picture, Reply, ReplyError
from sae.core.errors import FAILURES
from sae.core.files import read_jsonl
from tests.support.commands import interp
from tests.support.interp.asking import explain_run
from tests.support.interp.explaining import ColourSource
from tests.support.servers.colour_questions import COLOURS, ask, config_of, label, picture, question
from tests.support.servers.real_servers import Served, tiny_model

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def served(folder: Path, request: pytest.FixtureRequest) -> Served:
    """The fitted model, on the server that the environment names or on one of our own."""
    if base_url := os.environ.get("INTERP_TEST_BASE_URL"):
        return Served(base_url, os.environ.get("INTERP_TEST_MODEL", "tiny"))
    base_url = request.getfixturevalue("transformers")
    return Served(base_url, str(tiny_model("fitted", folder)))


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_of_a_picture_comes_back(served, ledger, colour):
    (reply,) = ask(served, ledger, question(picture(colour)))
    assert parse_object(reply.text) == {"label": colour, "confidence": 0.9}
    assert reply.finish_reason == "stop"
    assert ledger.get(reply.key) == stored(reply)


def stored(reply: Reply) -> Reply:
    return dataclasses.replace(reply, stored=True)


@pytest.mark.parametrize("n", [2, 4])
def test_several_pictures_reach_the_model_together(served, ledger, n):
    one, several = ask(
        served,
        ledger,
        question(picture("blue")),
        question(*(picture("blue", seed) for seed in range(n))),
    )
    assert label(one) == label(several) == "blue"
    n_tokens = several.usage.prompt_tokens - one.usage.prompt_tokens
    assert n_tokens >= (n - 1) * 60  # 224 px are 64 patches of 28 px


def test_sixteen_in_flight_are_not_mixed_up(served, ledger):
    names = [COLOURS[n % len(COLOURS)] for n in range(48)]
    random.Random(1).shuffle(names)
    replies = ask(served, ledger, *(question(picture(name, n)) for n, name in enumerate(names)))
    assert [label(reply) for reply in replies] == names
    assert len(ledger) == 48


def test_what_was_answered_is_not_asked_again(served, ledger):
    (first,) = ask(served, ledger, question(picture("red")))
    (second,) = ask(served, ledger, question(picture("red")))
    assert second == stored(first)


def test_a_server_that_bills_nothing_leaves_the_cost_unknown(served, ledger):
    (reply,) = ask(served, ledger, question(picture("green")))
    assert math.isnan(reply.usage.usd)
    assert reply.usage.completion_tokens > 5


def test_an_answer_without_room_is_cut_twice_and_both_are_told(served, ledger):
    with pytest.raises(ReplyError) as caught:
        ask(served, ledger, question(picture("red"), max_tokens=3))
    assert (caught.value.kind, len(caught.value.calls)) == ("truncated", 2)
    assert caught.value.usage.completion_tokens == 9


def torn() -> Picture:
    """A PNG with a header and not one row of pixels."""
    file = io.BytesIO()
    Image.new("RGB", (224, 224), "red").save(file, "PNG")
    return Picture(file.getvalue()[:45], "image/png")


def test_a_picture_that_is_none_fails_its_question_and_no_other(served, ledger):
    async def main() -> list[Reply | BaseException]:
        async with ChatModel(dataclasses.replace(config_of(served), n_tries=2), ledger) as model:
            good = await model.ask(question(picture("red")))
            tried = await asyncio.gather(model.ask(question(torn())), return_exceptions=True)
            return [good, *tried, await model.ask(question(picture("blue")))]

    first, broken, last = asyncio.run(main())
    assert (label(first), label(last)) == ("red", "blue")
    assert isinstance(broken, ReplyError)
    assert broken.kind in ("server", "bad_request")


def test_the_first_small_questions_are_passed_by_a_model_that_sees(served, ledger):
    async def main() -> None:
        async with ChatModel(config_of(served), ledger) as model:
            await check_sight(model)

    asyncio.run(main())
    assert len(ledger) == 2


def test_an_answer_of_another_form_is_a_failure_and_never_a_label(served, tmp_path):
    path = tmp_path / "explanations.jsonl"
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        explainer = VlmExplainer(ChatModel(config_of(served), ledger))
        summary = explain_run(path, ColourSource(), explainer, range(3), concurrency=3)
    assert (summary.n_labelled, summary.n_failed) == (0, 3)
    rows = read_jsonl(path)
    # With the schema enforced by the server it is a cut or an empty one.
    assert {row["failure"] for row in rows} <= {"wrong_keys", "truncated", "not_json", "invalid"}
    assert {row["label"] for row in rows} == {None}
    assert all(len(row["calls"]) >= 2 for row in rows)


def test_the_command_line_says_that_nothing_could_be_labelled(served, run):
    words = ("explain", "--run", run, "--model", served.model, "--base-url", served.base_url)
    asked = (*words, "--latents", "0,1,2,3", "--no-cap")
    assert interp(*asked) == FAILURES
    with Ledger(run / "calls.sqlite") as ledger:
        n_calls = len(ledger)
    rows = read_jsonl(run / "explanations.jsonl")
    assert len(rows) == 4
    assert {row["label"] for row in rows} == {None}
    assert interp(*asked) == FAILURES
    with Ledger(run / "calls.sqlite") as ledger:
        assert len(ledger) == n_calls
