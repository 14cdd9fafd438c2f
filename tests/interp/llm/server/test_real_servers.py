"""Our client against real servers: `pytest -m server`, minutes; extra `server`, npm for aimock.

`transformers serve` is started here with a tiny model that really reads colours. The tests of the
first half run against any other server of that model as well
(python tests/support/servers/tiny_vlm.py OUT --fit):

    INTERP_TEST_BASE_URL=http://127.0.0.1:8080/v1 INTERP_TEST_MODEL=tiny pytest -m server

for instance a llama.cpp that serves it as GGUF, with its vision part in a second file:

    convert_hf_to_gguf.py OUT --outfile tiny.gguf
    convert_hf_to_gguf.py OUT --mmproj --outfile mmproj.gguf
    llama-server -m tiny.gguf --mmproj mmproj.gguf --jinja --alias tiny --port 8080
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import math
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from interp.explain.explainer import VlmExplainer
from interp.explain.run import explain_run
from interp.llm.ledger.ledger import Ledger
from interp.llm.replies.schemas import parse_object
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.server.preflight import check_sight
from interp.llm.types import Picture, Question, Reply, ReplyError
from interp.records.codec import finished
from sae.core.errors import BUDGET, FAILURES, USAGE, UserError
from tests.support.commands import Walk, interp
from tests.support.interp.explaining import ColourSource
from tests.support.servers.real_servers import Served, aimock, tiny_model, transformers_serve
from tests.support.servers.tiny_vlm import RGB

pytestmark = pytest.mark.server

COLOURS = tuple(RGB)
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["label", "confidence"],
    "properties": {"label": {"type": "string"}, "confidence": {"type": "number"}},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def transformers(folder: Path) -> Iterator[str]:
    with transformers_serve(folder) as base_url:
        yield base_url


@pytest.fixture(scope="session")
def served(folder: Path, request: pytest.FixtureRequest) -> Served:
    """The fitted model, on the server that the environment names or on one of our own."""
    if base_url := os.environ.get("INTERP_TEST_BASE_URL"):
        return Served(base_url, os.environ.get("INTERP_TEST_MODEL", "tiny"))
    base_url = request.getfixturevalue("transformers")
    return Served(base_url, str(tiny_model("fitted", folder)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


def picture(colour: str, seed: int = 0, side: int = 224) -> Picture:
    """A shade of a colour with a small spot, so that no two are the same."""
    rng = random.Random(seed)
    shade = tuple(min(255, max(0, value + rng.randint(-15, 15))) for value in RGB[colour])
    image = Image.new("RGB", (side, side), shade)
    image.paste((128, 128, 128), (rng.randrange(150), rng.randrange(150), 160, 160))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return Picture(file.getvalue(), "image/jpeg")


def question(*pictures: Picture, text: str = "Which colour?", max_tokens: int = 64) -> Question:
    return Question(
        system="You look at pictures and answer with JSON only.",
        parts=(text, *pictures),
        schema=SCHEMA,
        schema_name="colour",
        max_tokens=max_tokens,
        temperature=0.0,
        prompt="f" * 64,
        about="explain 1",
    )


def ask(
    served: Served, ledger: Ledger, *questions: Question, key: str | None = None, **changes
) -> list[Reply]:
    """Ask all at once, at most 16 in flight."""
    config = dataclasses.replace(config_of(served), **changes)

    async def main() -> list[Reply]:
        async with ChatModel(config, ledger, key) as model:
            return await asyncio.gather(*(model.ask(one) for one in questions))

    return asyncio.run(main())


def config_of(served: Served) -> ClientConfig:
    return ClientConfig(
        served.model, served.base_url, concurrency=16, timeout=60, deadline=120, first_wait=0.05
    )


def label(reply: Reply) -> str:
    return str(parse_object(reply.text)["label"])


# On any server of the fitted model


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
    rows = list(finished(path))
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
    rows = list(finished(run / "explanations.jsonl"))
    assert len(rows) == 4
    assert {row["label"] for row in rows} == {None}
    assert interp(*asked) == FAILURES
    with Ledger(run / "calls.sqlite") as ledger:
        assert len(ledger) == n_calls


@pytest.fixture
def run(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the collected run beside the store, which it names by a relative path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "lists"))
    copy = walk.run.with_name("served")
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(walk.run, copy))


# On `transformers serve`, which ignores, drops, and answers 500 to what it does not know


def test_a_model_of_another_name_may_answer_and_is_recorded(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("fitted", folder)))
    (reply,) = ask(served, ledger, question(picture("red")))
    assert reply.model == f"{served.model}@main"


def test_a_dropped_picture_is_found_out_before_anything_is_paid(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("text_only", folder)))

    async def main() -> None:
        async with ChatModel(config_of(served), ledger) as model:
            asked = (question(picture("red")), question())
            in_prose = [model.ask(dataclasses.replace(one, schema=None)) for one in asked]
            with_picture, without = await asyncio.gather(*in_prose, return_exceptions=True)
            # Random weights do not stop by themselves: both are answered with 200 and cut.
            assert isinstance(with_picture, ReplyError)
            assert isinstance(without, ReplyError)
            assert with_picture.usage.prompt_tokens == without.usage.prompt_tokens > 0
            await check_sight(model)

    with pytest.raises(UserError, match=r"does not see|did not answer a first small question"):
        asyncio.run(main())


def test_rubbish_is_kept_as_it_came_and_has_no_value(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("random", folder)))
    asked = [question(picture(colour), text=f"say {colour}") for colour in COLOURS[:3]]
    with pytest.raises(ReplyError, match="cut twice"):  # it never ends by itself
        ask(served, ledger, *asked)
    replies = [ledger.get(key) for key in keys(ledger)]
    assert replies
    for reply in replies:
        assert reply is not None
        assert reply.text.strip()
        with pytest.raises(ReplyError, match="not_json"):
            parse_object(reply.text)


def keys(ledger: Ledger) -> list[str]:
    with sqlite3.connect(f"file:{ledger.path}?mode=ro", uri=True) as calls:
        return [key for (key,) in calls.execute("SELECT key FROM calls")]


def test_a_field_that_the_server_does_not_know_is_named(transformers, folder, ledger):
    served = Served(transformers, str(tiny_model("fitted", folder)))
    with pytest.raises(ReplyError, match="reasoning") as caught:
        ask(served, ledger, question(picture("red")), reasoning="low")
    assert caught.value.kind == "bad_request"


def test_an_unknown_model_ends_the_run(transformers, ledger):
    served = Served(transformers, "nobody/has-this")

    async def main() -> None:
        async with ChatModel(dataclasses.replace(config_of(served), n_tries=2), ledger) as model:
            with pytest.raises(ReplyError):
                await model.ask(question(picture("red")))
            await model.ask(question(picture("blue")))

    with pytest.raises(UserError, match="nobody/has-this"):
        asyncio.run(main())


# On aimock, which answers as OpenRouter documents


ANSWER = {"label": "red", "confidence": 0.9}
PAID = {"prompt_tokens": 300, "completion_tokens": 12, "cost": 0.00025}
FIXTURES = [
    {
        "match": {"userMessage": "patience", "sequenceIndex": 0},
        "response": {"error": {"message": "Rate limited"}, "status": 429, "retryAfter": 1},
    },
    {
        "match": {"userMessage": "no money"},
        "response": {
            "error": {
                "message": "Insufficient credits",
                "metadata": {"limit_source": "openrouter_credits"},
            },
            "status": 402,
        },
    },
    {"match": {}, "response": {"content": ANSWER, "usage": PAID}},
]
KEY = "sk-or-for-the-mock"
MODEL = "google/gemini-2.0-flash-001"


@pytest.fixture(scope="session")
def router(folder: Path) -> Iterator[Served]:
    with aimock(folder / "router", FIXTURES, keys=KEY) as base_url:
        yield Served(base_url, MODEL)


def test_what_the_router_bills_and_who_answered_is_kept(router, ledger):
    (reply,) = ask(router, ledger, question(picture("red")), key=KEY)
    assert label(reply) == "red"
    assert (reply.model, reply.provider) == (MODEL, "google")
    assert (reply.usage.usd, reply.usage.prompt_tokens) == (0.00025, 300)


def test_routing_options_are_taken(router, ledger):
    routing = {"provider": ("google",), "quantization": ("bf16",), "zdr": True}
    (reply,) = ask(router, ledger, question(picture("red")), key=KEY, **routing)
    assert label(reply) == "red"


def test_a_wrong_key_ends_the_run_with_its_remedy(router, ledger):
    with pytest.raises(UserError, match="OPENROUTER_API_KEY") as caught:
        ask(router, ledger, question(picture("red")), key="sk-or-wrong")
    assert caught.value.exit_code == USAGE
    assert "sk-or-wrong" not in str(caught.value)


def test_no_credit_ends_the_run_with_its_own_exit_code(router, ledger):
    with pytest.raises(UserError, match="no credit left") as caught:
        ask(router, ledger, question(picture("red"), text="no money"), key=KEY)
    assert caught.value.exit_code == BUDGET


def test_a_rate_limit_is_waited_for_as_long_as_the_router_asks(router, ledger):
    started = time.monotonic()
    (reply,) = ask(router, ledger, question(picture("red"), text="patience"), key=KEY)
    assert label(reply) == "red"
    assert time.monotonic() - started >= 1.0


def test_a_model_without_eyes_is_refused_by_the_routers_own_list(router, run, monkeypatch, capsys):
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    words = ("explain", "--run", run, "--model", MODEL, "--base-url", router.base_url)
    assert interp(*words, "--latents", "0,1") == USAGE
    assert "image" in capsys.readouterr().err
    with Ledger(run / "calls.sqlite") as ledger:
        assert len(ledger) == 0


def test_in_chaos_all_of_200_questions_are_answered_once(folder, ledger):
    chaos = {"ratelimit": 0.2, "malformed": 0.1, "disconnect": 0.1, "drop": 0.1}
    words = [word for kind, rate in chaos.items() for word in (f"--chaos-{kind}", str(rate))]
    asked = [question(picture("red", n), text=f"Which colour, {n}?") for n in range(200)]
    with aimock(folder / "chaos", FIXTURES[-1:], *words) as base_url:
        config = dataclasses.replace(
            config_of(Served(base_url, MODEL)), timeout=20, deadline=300, n_tries=20
        )

        async def main() -> tuple[list[Reply], int]:
            async with ChatModel(config, ledger, KEY) as model:
                return await asyncio.gather(*(model.ask(one) for one in asked)), model.n_sent

        replies, n_sent = asyncio.run(main())
    assert [label(reply) for reply in replies] == ["red"] * 200
    assert len({reply.key for reply in replies}) == len(ledger) == 200
    assert n_sent > 250  # so there was chaos
