"""Listing a server's models: what each kind of server says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.llm.cost.model_list import (
    ModelInfo,
    fetch_models,
    list_models,
    read_cached_models,
)
from interp.llm.cost.price import Price
from sae.core.errors import USAGE, UserError
from tests.support.servers.loopback import Loopback
from tests.support.servers.model_entries import entry

KEY = "sk-or-v1-canary-abcdefghijklmnop"


def listed(*entries: Any) -> tuple[ModelInfo, ...]:
    """What is read of a server that lists these."""
    with Loopback(listing={"data": list(entries)}) as server:
        return fetch_models(server.base_url, None).models


def test_openrouter_says_all_of_it() -> None:
    assert listed(entry()) == (
        ModelInfo(
            id="acme/eyes-1",
            sees_images=True,
            price=Price(1e-7, 5e-7, request=0.0, image=0.0002),
            context=131072,
            structured="schema",
            name="Acme: Eyes 1",
        ),
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (  # vLLM
            {"object": "list", "data": [{"id": "Qwen/Qwen3-VL-8B", "max_model_len": 32768}]},
            ModelInfo("Qwen/Qwen3-VL-8B", context=32768),
        ),
        (  # Ollama
            {"object": "list", "data": [{"id": "qwen3-vl:latest", "owned_by": "library"}]},
            ModelInfo("qwen3-vl:latest"),
        ),
        (  # Together: a bare list, prices in another unit under other names
            [{"id": "a/b", "context_length": 4096, "pricing": {"input": 0.2, "output": 0.6}}],
            ModelInfo("a/b", context=4096),
        ),
        (  # Mistral
            {"data": [{"id": "m", "capabilities": {"vision": False}, "max_context_length": 9}]},
            ModelInfo("m", sees_images=False, context=9),
        ),
    ],
)
def test_what_a_server_does_not_say_is_unknown(body: Any, expected: ModelInfo) -> None:
    with Loopback(listing=body) as server:
        assert fetch_models(server.base_url, None).models == (expected,)


def test_ollama_without_a_model_lists_none() -> None:
    with Loopback(listing={"object": "list", "data": None}) as server:
        assert fetch_models(server.base_url, None).models == ()


def test_text_only_model_is_said_to_see_nothing() -> None:
    (info,) = listed(entry(architecture={"input_modalities": ["text"]}))
    assert info.sees_images is False


@pytest.mark.parametrize(
    "pricing",
    [
        {"prompt": "-1", "completion": "-1"},  # a router: the price varies
        {"prompt": "0.1"},
        {"prompt": "NaN", "completion": "0"},
        {"prompt": "free", "completion": "0"},
        {"prompt": 0.25, "completion": 1.5},  # surely per million
        {"prompt": "0.0000001", "completion": "0.0000005", "image": "-1"},
        None,
        [],
    ],
)
def test_price_that_varies_or_makes_no_sense_is_unknown_and_not_zero(pricing: Any) -> None:
    (info,) = listed(entry(pricing=pricing))
    assert info.price is None


def test_free_model_costs_nothing_and_dear_thinking_counts_as_completion() -> None:
    free, thinking = listed(
        entry(pricing={"prompt": "0", "completion": "0"}),
        entry(pricing={"prompt": "1e-7", "completion": "1e-7", "internal_reasoning": "4e-7"}),
    )
    assert free.price == Price(0.0, 0.0)
    assert thinking.price == Price(1e-7, 4e-7)


@pytest.mark.parametrize(
    ("parameters", "structured"),
    [
        (["structured_outputs"], "schema"),
        (["response_format", "tools"], "object"),
        (["tools"], "no"),
        (None, None),
    ],
)
def test_structured_output_is_read_from_the_parameters(
    parameters: list[str] | None, structured: str | None
) -> None:
    (info,) = listed(entry(supported_parameters=parameters))
    assert info.structured == structured


def test_entries_that_are_no_model_for_text_are_left_out() -> None:
    drawing = entry(architecture={"input_modalities": ["text"], "output_modalities": ["image"]})
    assert listed(drawing, {"name": "no id"}, "words", None, {"id": 3}) == ()


@pytest.mark.parametrize(
    ("listing", "status", "says"),
    [
        ({"detail": "Not Found"}, 404, "status 404"),
        (b"Internal Server Error", 500, "status 500"),
        ({"error": {"message": "No auth"}}, 401, "OPENROUTER_API_KEY"),
        (b"<html>Welcome</html>", 200, "does the URL end in /v1"),
        ({"models": []}, 200, "does the URL end in /v1"),
        ([[]], 200, None),
    ],
)
def test_server_without_a_list_is_said_in_one_line(
    listing: Any, status: int, says: str | None
) -> None:
    with Loopback(listing=listing, models_status=status) as server:
        if says is None:
            assert fetch_models(server.base_url, KEY).models == ()
            return
        with pytest.raises(UserError, match=says) as caught:
            fetch_models(server.base_url, KEY)
    assert caught.value.exit_code == USAGE
    assert "\n" not in str(caught.value)


def test_server_that_is_not_there_is_said_in_one_line_and_leaves_no_cache() -> None:
    with Loopback() as server:
        gone = server.base_url
    with pytest.raises(UserError, match="cannot be reached"):
        list_models(gone, None)
    assert read_cached_models(gone) is None


def test_failed_listing_asks_once_only() -> None:
    with Loopback(listing={}, models_status=503) as server:
        with pytest.raises(UserError):
            fetch_models(server.base_url, None)
        assert len(server.requests) == 1


def test_key_is_sent_when_there_is_one_and_otherwise_no_header() -> None:
    with Loopback() as server:
        fetch_models(server.base_url, KEY)
        fetch_models(server.base_url, None)
        headers = [{k.lower(): v for k, v in r.headers.items()} for r in server.requests]
    assert [h.get("authorization") for h in headers] == [f"Bearer {KEY}", None]


def test_key_is_in_no_file_and_no_error_even_when_the_server_echoes_it(cache: Path) -> None:
    with Loopback(listing={"data": [entry(id=f"acme/{KEY}", name=KEY)]}) as server:
        base_url = server.base_url.replace("//", f"//user:{KEY}@")
        listing = fetch_models(base_url, KEY)
        assert listing.models[0].id == "acme/[key]"
        server.listing, server.models_status = {"error": KEY}, 400
        with pytest.raises(UserError) as caught:
            fetch_models(base_url, KEY)
    assert KEY not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert KEY not in files[0].read_text() + str(files[0])


def test_key_with_a_line_break_is_refused_without_showing_it() -> None:
    with pytest.raises(UserError, match="OPENROUTER_API_KEY has characters") as caught:
        fetch_models("http://127.0.0.1:9/v1", f"{KEY}\n{KEY}")
    assert KEY not in str(caught.value)
