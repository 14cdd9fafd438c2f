import pytest

from interp.llm.cost.model_list import ModelInfo
from interp.llm.cost.price import Price
from interp.llm.ledger.ledger import Ledger
from interp.llm.types import is_own
from interp.pipeline.paid.model import (
    EXPLAIN_SHAPE,
    JUDGE_SHAPE,
    checked_price,
    layout_of,
    model_info,
    paid_model,
)
from interp.pipeline.settings import ModelSettings
from sae.core.errors import UserError

REMOTE = "https://api.example.org/v1"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://10.1.2.3/v1", True),
        ("http://gpu.local/v1", True),
        ("https://openrouter.ai/api/v1", False),
        ("https://localhost.example.org/v1", False),
        ("http://8.8.8.8/v1", False),
    ],
)
def test_nobody_bills_for_a_server_on_this_machine_or_network(url, own):
    assert is_own(url) == own


def test_the_price_is_the_users_or_else_the_servers():
    listed = ModelInfo("m", price=Price(1e-6, 2e-6))
    given = ModelSettings(model="m", base_url=REMOTE, price="3,4")
    assert checked_price(given, listed) == Price(3e-6, 4e-6)
    assert checked_price(ModelSettings(model="m", base_url=REMOTE), listed) == listed.price


def test_a_remote_model_without_a_price_needs_the_users_word():
    with pytest.raises(UserError, match=r"--price IN,OUT .*or --no-cap"):
        checked_price(ModelSettings(model="m", base_url=REMOTE), None)
    assert checked_price(ModelSettings(model="m", base_url=REMOTE, no_cap=True), None) is None


def test_a_cap_needs_a_price_even_at_home():
    home = "http://127.0.0.1:1/v1"
    assert checked_price(ModelSettings(model="m", base_url=home), None) is None
    with pytest.raises(UserError, match="--max-cost needs the price"):
        checked_price(ModelSettings(model="m", base_url=home, max_cost=1.0), None)


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("http://127.0.0.1:8000/v1", "--model m --base-url http://127.0.0.1:8000/v1"),
        ("http://me:pw@gpu.local/v1", "--model m --base-url http://gpu.local/v1"),
        (
            f"{REMOTE}?api-version=2026-01-01",
            f"--model m --base-url '{REMOTE}?api-version=2026-01-01'",
        ),
        (f"{REMOTE}?key=abc&v=" + "x" * 40, f"--model m --base-url '{REMOTE}?key=...&v=...'"),
        ("https://openrouter.ai/api/v1/", "--model m"),
    ],
)
def test_a_printed_command_names_the_server_and_no_secret(url, printed):
    assert ModelSettings(model="m", base_url=url).typed == printed


def test_a_mistyped_model_is_told_its_name_and_nothing_is_sent(server):
    settings = ModelSettings(model="fake/vison", base_url=server.base_url)
    with pytest.raises(UserError, match=r"did you mean 'fake/vision'.*nothing was sent"):
        model_info(settings)
    assert server.chats == []
    server.listing = {"data": []}
    assert model_info(settings) is None


def test_a_model_that_reads_no_images_is_refused_before_any_question(server, tmp_path):
    text_only = {"id": "fake/text", "architecture": {"input_modalities": ["text"]}}
    server.listing = {"data": [text_only]}
    settings = ModelSettings(model="fake/text", base_url=server.base_url)
    with (
        Ledger(tmp_path / "calls.sqlite") as ledger,
        pytest.raises(UserError, match="reads no images"),
    ):
        paid_model(settings, ledger, ("explain",))
    assert server.chats == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_a_list_of_models_stops_nothing(server, status):
    server.models_status = status
    settings = ModelSettings(model="fake/vision", base_url=server.base_url)
    assert model_info(settings) is None


def test_what_a_stage_has_spent_counts_against_its_cap(server, tmp_path):
    settings = ModelSettings(model="fake/vision", base_url=server.base_url, max_cost=1.0)
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        ledger.risk("key", "explain 3", 0.4)
        assert paid_model(settings, ledger, ("explain",)).purse.used == 0.4
        assert paid_model(settings, ledger, ("score",)).purse.used == 0.0


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        ("google/gemini-3.1-flash-lite", "grid"),
        ("openai/gpt-4o", "grid"),
        ("anthropic/claude-haiku-4.5", "separate"),
        ("somebody/unknown", "grid"),
    ],
)
def test_auto_chooses_the_layout_that_the_model_bills_less_for(model, layout):
    settings = ModelSettings(model=model)
    assert layout_of(settings, EXPLAIN_SHAPE) == layout
    assert layout_of(settings, JUDGE_SHAPE) == layout
    forced = ModelSettings(model=model, layout="separate")
    assert layout_of(forced, EXPLAIN_SHAPE) == "separate"
