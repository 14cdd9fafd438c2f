"""What requests cost in tokens, against the published and billed figures of each family."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from interp.explain.answer import explain_schema
from interp.llm.cost.image_tokens import family_of
from interp.llm.cost.tokens import (
    EXPLAIN_ANSWER,
    LETTER_ANSWER,
    answer_tokens,
    cheaper_layout,
    most_tokens,
    picture_tokens,
    prompt_tokens,
)
from interp.llm.types import Picture, Question
from interp.score.answer import detect_schema

SIZES = {
    "3x3": (672, 672),
    "4x4": (896, 896),
    "single": (224, 224),
    "4x3": (896, 672),
    "5x2": (1120, 448),
    "sharp": (1008, 1008),
}
# One row a family: tokens of the sizes above, in order; for "single" those of twelve.
TABLE = {
    "anthropic/claude-haiku-4.5": (576, 1024, 768, 768, 640, 1296),
    "anthropic/claude-sonnet-5.5": (576, 1024, 768, 768, 640, 1296),
    "openai/gpt-4o": (765, 765, 3060, 765, 595, 765),
    "openai/gpt-5": (630, 630, 2520, 630, 490, 630),
    "openai/gpt-4.1-mini": (714, 1270, 953, 953, 794, 1659),
    "openai/gpt-5-mini": (529, 941, 706, 706, 588, 1229),
    "openai/gpt-6-luna": (529, 941, 706, 706, 588, 1229),
    "openai/gpt-5-nano": (662, 1176, 882, 882, 735, 1536),
    "google/gemini-3.1-flash-lite": (1089, 1089, 13068, 1089, 1089, 1089),
    "google/gemini-2.5-flash": (1032, 1032, 3096, 1032, 2064, 1032),
    "qwen/qwen3-vl-30b-a3b-instruct": (443, 786, 792, 590, 492, 1026),
    "qwen/qwen2.5-vl-72b-instruct": (578, 1026, 792, 770, 642, 1298),
    "mistralai/mistral-small-2603": (600, 1056, 864, 792, 656, 1332),
    "mistralai/pixtral-12b": (1806, 3192, 2520, 2394, 1690, 4032),
    "meta-llama/llama-4-maverick": (720, 1440, 1728, 1008, 1296, 1440),
    "meta-llama/llama-3.2-11b-vision-instruct": (6404, 6404, 19212, 6404, 3202, 6404),
    "google/gemma-4-31b-it": (256, 256, 3072, 266, 260, 256),
}


def picture(width: int, height: int) -> Picture:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return Picture(file.getvalue(), "image/png")


def question(*parts: str | Picture, system: str = "", name: str = "", n: int = 0) -> Question:
    letters = "ABCDEFGHJKLM"[:n]
    schema = {"explain": explain_schema, "detect": detect_schema}[name](letters) if name else None
    return Question(system, parts, schema, name, max_tokens=700, temperature=0.0, prompt="p")


@pytest.mark.parametrize("model", TABLE)
@pytest.mark.parametrize("layout", SIZES)
def test_each_family_bills_the_sizes_we_send_as_tabled(model: str, layout: str) -> None:
    expected = dict(zip(SIZES, TABLE[model], strict=True))[layout]
    n = 12 if layout == "single" else 1
    # Within the rounding of a single picture.
    assert n * picture_tokens(model, SIZES[layout]) == pytest.approx(expected, abs=0.51 * n)


def test_openai_patch_model_shrinks_a_large_picture_to_whole_patches() -> None:
    # The worked example of OpenAI's guide: 1800 x 2400 becomes 1056 x 1408, 33 x 44 patches.
    assert picture_tokens("gpt-4.1-mini", (1800, 2400)) == round(33 * 44 * 1.62)
    # Billed for GPT-6, which takes more patches: all of 1536 x 1024.
    assert picture_tokens("openai/gpt-6-astra", (1536, 1024)) == round(48 * 32 * 1.2)


def test_openai_tile_model_shrinks_both_sides() -> None:
    # The worked examples of OpenAI's guide.
    assert picture_tokens("gpt-4o", (1024, 1024)) == 765
    assert picture_tokens("gpt-4o", (2048, 4096)) == 1105


def test_claude_never_bills_more_than_its_cap() -> None:
    sizes = [(2000, 2000), (1092, 1092), (8000, 200), (1568, 1568), (3, 4000)]
    assert max(picture_tokens("claude-haiku-4.5", size) for size in sizes) == 1568 - 47
    assert max(picture_tokens("claude-opus-5.5", size) for size in sizes) <= 4784
    assert picture_tokens("claude-haiku-4.5", (1500, 1100)) == 45 * 33  # whole both ways


@pytest.mark.parametrize(
    ("model", "same_as"),
    [
        ("openai/gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("openai/gpt-4.1", "gpt-4o"),
        ("openai/gpt-5.1", "gpt-5"),
        ("openai/gpt-5.4-mini", "gpt-5-mini"),
        ("openai/o3", "o1"),
        ("google/gemini-4-argon", "gemini-3.1-pro"),
        ("google/gemini-flash-1.5", "gemini-2.0-flash"),
        ("Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl"),
        ("qwen/qwen3.8-flash:free", "qwen3-vl:8b"),
        ("qwen/qwen-2.5-vl-7b-instruct", "Qwen2.5-VL-3B-Instruct-AWQ"),
        ("/models/tiny-qwen2vl-fit@main", "qwen2-vl"),
        ("mistralai/ministral-14b-2512", "mistral-medium-3.1"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4"),
        ("llama3.2-vision", "meta-llama/llama-3.2-90b-vision-instruct:free"),
        ("anthropic/claude-3.5-sonnet", "claude-sonnet-4-20250514"),
        ("anthropic/claude-opus-4.6", "claude-haiku-4-5-20251001"),
        ("anthropic/claude-opus-4.7", "claude-haiku-5.5"),
    ],
)
def test_dates_makers_and_variants_do_not_hide_the_family(model: str, same_as: str) -> None:
    assert family_of(model).known
    assert family_of(model) is family_of(same_as)


def test_claudes_two_generations_and_gpt_4o_mini_are_told_apart() -> None:
    assert family_of("claude-opus-4.6") is not family_of("claude-opus-4.7")
    assert picture_tokens("gpt-4o-mini", (224, 224)) == 2833 + 5667
    assert picture_tokens("gpt-4o", (224, 224)) == 255


def test_unknown_model_is_reckoned_dearer_than_usual_patches() -> None:
    assert not family_of("acme/eyes-1").known
    for size in SIZES.values():
        assert picture_tokens("acme/eyes-1", size) > picture_tokens("qwen2.5-vl", size)


@pytest.mark.parametrize("model", [*TABLE, "acme/eyes-1"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (5000, 3), (6000, 6000)])
def test_odd_sizes_cost_some_tokens_in_every_family(model: str, size: tuple[int, int]) -> None:
    assert 1 <= picture_tokens(model, size) < 20_000


def test_prompt_tokens_add_text_schema_pictures_and_what_every_call_costs() -> None:
    asked = question("a" * 360, picture(224, 224), "b" * 360, picture(896, 672), name="detect", n=9)
    tokens = prompt_tokens(asked, "claude-haiku-4.5")
    schema = len(json.dumps(asked.schema))
    assert tokens.pictures == 64 + 768
    assert tokens.text == pytest.approx(200 + schema / 2.8 + 65)
    assert tokens.total == tokens.text + tokens.pictures


def test_text_of_our_prompts_is_within_a_sixth_of_what_o200k_base_counts() -> None:
    # Counted once with the tokenizer of GPT-4o and later: our prompts of these lengths.
    for n_characters, counted in [(1091, 255), (2701, 658), (3260, 772)]:
        text = prompt_tokens(question("x" * n_characters), "openai/gpt-5-mini").text
        assert text == pytest.approx(counted, rel=1 / 6)


@pytest.mark.parametrize("model", [*TABLE, "acme/eyes-1"])
def test_bound_stays_above_twice_the_expected_pictures_and_every_byte_of_text(model: str) -> None:
    asked = question("日本" * 50, picture(1120, 448), system="x" * 77, name="detect", n=10)
    most, expected = most_tokens(asked, model), prompt_tokens(asked, model)
    assert most >= 300 + 77 + len(json.dumps(asked.schema)) + 2 * expected.pictures
    assert most >= expected.total


def test_bound_counts_every_byte_of_a_script_with_a_token_for_each() -> None:
    assert most_tokens(question("日" * 1000), "gpt-4o") >= 3000


def test_answers_grow_with_the_letters_and_never_pass_max_tokens() -> None:
    assert answer_tokens(question(name="detect", n=10)) == 10 * LETTER_ANSWER
    assert answer_tokens(question(name="explain", n=12)) == EXPLAIN_ANSWER
    assert answer_tokens(question()) == 700
    short = Question("", (), detect_schema("ABC"), "detect", 5, 0.0, "p")
    assert answer_tokens(short) == 5


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        ("anthropic/claude-haiku-5.5", "separate"),  # a tie: 768 and 768
        ("openai/gpt-6-luna", "separate"),  # a tie: 705.6 and 705.6
        ("openai/gpt-4o", "grid"),
        ("google/gemini-3.1-flash-lite", "grid"),
        ("qwen/qwen3.8-flash", "grid"),  # small pictures are enlarged: 590 and 792
        ("mistralai/mistral-small-2603", "grid"),
        ("acme/eyes-1", "grid"),  # by formula a tie, but nobody knows
    ],
)
def test_layout_is_the_one_billed_less_and_a_tie_goes_to_separate_images(
    model: str, layout: str
) -> None:
    assert cheaper_layout(model, [(896, 672)], [(224, 224)] * 12) == layout


def test_grid_that_is_mostly_empty_loses_to_few_separate_images() -> None:
    assert cheaper_layout("qwen3-vl", [(896, 672)], [(224, 224)] * 5) == "separate"
