"""The table of models: variants, prices, order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from interp.cli.models import choose_models, figures, latent_usd, print_models
from interp.llm.cost.model_list import (
    Listing,
    ModelInfo,
    find_model,
)
from interp.llm.cost.price import Price

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


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
