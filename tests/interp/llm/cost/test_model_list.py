"""Listing a server's models: what each kind of server says, the cache of a day, the table."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from interp.cli.models import choose_models, figures, latent_usd, print_models
from interp.llm.cost.model_list import (
    Listing,
    ModelInfo,
    cached_models,
    fetch_models,
    find_model,
    known_models,
)
from interp.llm.cost.price import Price
from sae.core.errors import USAGE, UserError
from tests.support.servers.loopback import Loopback

KEY = "sk-or-v1-canary-abcdefghijklmnop"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sae-interp"


def entry(**changes: Any) -> dict[str, Any]:
    """One model as OpenRouter lists it."""
    return {
        "id": "acme/eyes-1",
        "canonical_slug": "acme/eyes-1-20261101",
        "name": "Acme: Eyes 1",
        "context_length": 131072,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.0000001", "completion": "0.0000005", "image": "0.0002"},
        "top_provider": {"context_length": 65536, "max_completion_tokens": 8192},
        "supported_parameters": ["max_tokens", "response_format", "structured_outputs"],
        **changes,
    }


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
        known_models(gone, None)
    assert cached_models(gone) is None


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


def test_cached_listing_equals_the_fetched_one_without_a_socket() -> None:
    with Loopback(listing={"data": [entry(), {"id": "bare"}]}) as server:
        assert cached_models(server.base_url) is None
        assert server.requests == []
        fetched = fetch_models(server.base_url, None)
        assert known_models(server.base_url + "/", None) == fetched
        assert len(server.requests) == 1
    assert cached_models(server.base_url) == fetched


def test_listing_older_than_a_day_is_fetched_again_but_can_still_be_read(cache: Path) -> None:
    with Loopback() as server:
        fetch_models(server.base_url, None)
        (file,) = cache.glob("*.json")
        stored = json.loads(file.read_text())
        old = datetime.now(UTC) - timedelta(days=1, minutes=1)
        file.write_text(json.dumps({**stored, "fetched": old.isoformat()}))
        stale = cached_models(server.base_url)
        assert stale is not None
        assert not stale.is_fresh
        assert known_models(server.base_url, None).is_fresh
        assert len(server.requests) == 2


def test_each_server_has_its_own_listing() -> None:
    with Loopback(models=("a",)) as one, Loopback(models=("b",)) as other:
        known_models(one.base_url, None)
        assert known_models(other.base_url, None).models[0].id == "b"
        assert known_models(one.base_url, None).models[0].id == "a"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 99}', '{"format": 1}'])
def test_broken_cache_is_as_good_as_none(cache: Path, text: str) -> None:
    with Loopback() as server:
        fetch_models(server.base_url, None)
        (file,) = cache.glob("*.json")
        file.write_text(text)
        assert cached_models(server.base_url) is None
        assert known_models(server.base_url, None).models[0].id == "fake/vision"


def test_cache_of_another_format_is_as_good_as_none(cache: Path) -> None:
    with Loopback() as server:
        fetch_models(server.base_url, None)
    (file,) = cache.glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    assert cached_models(server.base_url) is None


def test_cache_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with Loopback() as server:
        assert fetch_models(server.base_url, None).models[0].id == "fake/vision"


def test_variant_is_found_as_itself_or_as_the_model_that_it_is_one_of() -> None:
    models = tuple(ModelInfo(name) for name in ("a/b", "a/b:free", "a/c", "qwen3-vl:latest"))
    found = {
        asked: (find_model(Listing(models, NOW), asked) or ModelInfo("none")).id
        for asked in ("a/b", "a/b:free", "a/c:nitro", "a/c:online", "qwen3-vl", "a/B", "a/")
    }
    assert found == {
        "a/b": "a/b",
        "a/b:free": "a/b:free",
        "a/c:nitro": "a/c",
        "a/c:online": "none",  # billed for searches too
        "qwen3-vl": "qwen3-vl:latest",
        "a/B": "none",
        "a/": "none",
    }


@pytest.mark.parametrize(
    ("model", "price", "usd"),
    [
        ("openai/gpt-6-luna", Price(0.1e-6, 0.5e-6), 0.0011),
        ("anthropic/claude-haiku-5.5", Price(0.1e-6, 0.5e-6), 0.0012),
        ("google/gemini-3.1-flash-lite", Price(0.25e-6, 1.5e-6), 0.0036),
        ("anthropic/claude-sonnet-5.5", Price(2e-6, 10e-6), 0.023),
    ],
)
def test_price_of_a_latent_agrees_with_the_one_worked_out_by_hand(
    model: str, price: Price, usd: float
) -> None:
    assert latent_usd(ModelInfo(model, price=price)) == pytest.approx(usd, rel=0.1)


def test_cheapest_latent_comes_first_and_text_only_models_only_on_request() -> None:
    dear, cheap = Price(2e-6, 1e-5), Price(1e-7, 5e-7)
    models = (
        ModelInfo("a/dear", True, dear),
        ModelInfo("a/unpriced"),
        ModelInfo("a/text", False, cheap, name="Blind One"),
        # Per token cheaper than a/dear, per latent dearer: 33 times the tokens per picture.
        ModelInfo("openai/gpt-4o-mini", True, Price(1.5e-6, 6e-6)),
        ModelInfo("a/cheap", True, cheap),
    )
    listing = Listing(models, NOW)
    seeing = [info.id for info in choose_models(listing)]
    assert seeing == ["a/cheap", "a/dear", "openai/gpt-4o-mini", "a/unpriced"]
    assert "a/text" in [info.id for info in choose_models(listing, all_models=True)]
    assert [info.id for info in choose_models(listing, "BLIND", True)] == ["a/text"]
    assert choose_models(listing, "blind") == []


def test_table_shows_dollars_per_million_and_question_marks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    priced = ModelInfo("a/b", True, Price(0.25e-6, 1.5e-6), 131072, "schema", "B")
    print_models(Listing((priced, ModelInfo("bare")), NOW))
    header, first, second, last = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["model", "$", "in/M"]
    assert first.split()[:3] == ["a/b", "0.25", "1.50"]
    assert first.split()[-3:] == ["131,072", "schema", "yes"]
    assert second.split() == ["bare", *"??????"]
    assert last == "2 of 2 models; listed 2026-11-21 12:00 UTC"


def test_no_match_is_said_with_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    print_models(Listing((ModelInfo("a/text", False),), NOW), "text")
    assert "'text'" in capsys.readouterr().out


def test_figures_hold_what_the_table_shows_and_null_for_what_nobody_says() -> None:
    priced = ModelInfo("a/b", True, Price(0.25e-6, 1.5e-6), 131072, "schema", "B")
    found = figures(Listing((priced, ModelInfo("bare"), ModelInfo("blind", False)), NOW))
    assert found["a/b/usd_per_million_in"] == pytest.approx(0.25)
    assert found["a/b/usd_per_million_out"] == pytest.approx(1.5)
    assert found["a/b/usd_per_latent"] == latent_usd(priced)
    assert (found["a/b/context"], found["a/b/structured"]) == (131072, "schema")
    assert {value for name, value in found.items() if name.startswith("bare/")} == {None}
    assert not [name for name in found if name.startswith("blind/")]
