"""What an explainer is asked, and what becomes of its answer."""

import asyncio
from dataclasses import replace

import pytest
from PIL import Image

from interp.explain.examples import ShowConfig
from interp.explain.explainer import ExplainConfig, VlmExplainer
from interp.llm.prompts import list_letters
from interp.pictures.grid import FIRST, SECOND
from interp.records.split import split_of
from interp.records.types import UNREADABLE, Evidence, Example, Explanation
from sae.data.images import BadImage
from tests.support.interp.explaining import ColourSource, draw
from tests.support.interp.scripted_model import Scripted, answer


def explained(model, source=None, latent=0, **kwargs) -> Explanation:
    source = source or ColourSource()
    explainer = VlmExplainer(model, **kwargs)
    return asyncio.run(explainer.explain(source.of(latent), source.image))


# What is asked


def test_the_question_holds_two_grids_and_names_strong_and_weak_letters():
    model = Scripted()
    explanation = explained(model)
    (question,) = model.questions
    text, first, grid, second, neg_grid, last = question.parts
    assert (first, second, last) == (
        "First set:",
        "Second set:",
        "Now answer with the JSON object.",
    )
    assert grid.media_type == neg_grid.media_type == "image/jpeg"
    by_letter = {e.image_id: e for e in ColourSource().of(0).examples}
    strong = text.partition("strongly to ")[2].partition(", more")[0]
    for letter in explanation.codes:
        if letter in FIRST:
            top = by_letter[explanation.codes[letter]]
            assert (f" {letter}" in f" {strong}") == (top.kind == "top")
    assert question.schema["required"][:2] == ["seen", "second_set"]
    assert (question.max_tokens, question.temperature) == (700, 0.3)


def test_separate_pictures_are_named_by_the_letters_that_the_explanation_keeps():
    model = Scripted()
    explanation = explained(model, config=ExplainConfig(layout="separate"))
    texts = [part for part in model.questions[0].parts[1:-1] if isinstance(part, str)]
    assert [text[-2] for text in texts] == list(explanation.codes) == [*FIRST, *SECOND]
    assert {picture.size for picture in model.questions[0].pictures} == {(224, 224)}
    assert model.questions[0].about == "explain 0"


@pytest.mark.parametrize("n_weak", [0, 14, 20])
def test_the_question_says_which_negatives_are_weak(n_weak: int):
    source = ColourSource()
    latent = source.of(0)
    changed = [e for e in latent.examples if not e.is_positive][:n_weak]
    examples = (replace(e, kind="weak", act=0.01) if e in changed else e for e in latent.examples)
    source.of = lambda _: Evidence(latent.stats, tuple(examples))
    model = Scripted()
    codes = explained(model, source).codes
    weak = {e.image_id for e in changed}
    letters = [letter for letter, image_id in codes.items() if image_id in weak]
    said = model.questions[0].parts[0].partition("the same detector gives ")[2].partition(".")[0]
    some = f"no response or, to {list_letters(letters)}, only its weakest"
    assert said == {0: "no response", 14: some, 20: "only its weakest responses"}[n_weak]
    assert bool(letters) == bool(n_weak)


def test_neither_class_nor_file_name_nor_activation_is_told():
    model = Scripted()
    explained(model)
    text = " ".join(part for part in model.questions[0].parts if isinstance(part, str))
    for secret in ("class red", "Disc", "red", "9.0"):
        assert secret not in text


def test_patch_latents_add_a_twin_grid_and_ask_for_the_region():
    model = Scripted()
    source = ColourSource(heat=bytes([0] * 20 + [255] * 10 + [0] * 19))
    explained(model, source, heat_of=source.heat)
    (question,) = model.questions
    pictures = [part for part in question.parts if not isinstance(part, str)]
    assert len(pictures) == 3
    assert pictures[0] != pictures[1]
    assert "region" in question.schema["required"]
    assert "magenta outline" in question.parts[0]


def test_the_strong_pictures_must_show_the_label_and_the_weak_ones_need_not():
    model = Scripted()
    explained(model)
    text = model.questions[0].parts[0]
    strong = text.partition("strongly to ")[2].partition(", more")[0]
    assert f"fits the strong pictures {strong} (one may miss it); the weaker ones may" in text
    assert "fits more than two pictures of the second set is too broad" in text
    assert "four fifths" not in text


@pytest.mark.parametrize(
    ("rates", "bound"),
    [
        ({"sketch": 0.0901, "photo": 0.01}, "drawings"),
        ({"ours": 0.01, "clay": 0.2}, "pictures of the kind <<<clay>>>"),
        ({"sketch": 0.08, "photo": 0.01}, ""),
        ({"sketch": 0.08}, ""),
        ({"sketch": 0.0, "photo": 0.0}, ""),
    ],
)
def test_a_latent_that_is_bound_to_one_domain_may_be_named_by_it(rates, bound):
    model, source = Scripted(), ColourSource(rates=rates)
    explained(model, source)
    (question,) = model.questions
    text = question.parts[0]
    assert (f"responds with this detector almost only to {bound}" in text) == bool(bound)
    assert ("Do not use words for the medium" in text) == (not bound)
    assert ("so the medium explains nothing" in text) == (not bound)
    assert ("domain" in question.schema["required"]) == bool(bound)
    said = explained(Scripted(answer(question, label="Sketch of a disc", domain="Bound")), source)
    assert said.domain == (max(rates, key=rates.get) if bound else "")
    assert said.label == ("sketch of a disc" if bound else "disc")
    assert explained(Scripted(answer(question)), source).domain == ""


def test_an_image_that_can_no_longer_be_read_is_left_out():
    source, model = ColourSource(), Scripted()
    broken = source.of(0).examples[0]

    def image(example: Example) -> Image.Image:
        if example.image_id == broken.image_id:
            raise BadImage("gone")
        return source.image(example)

    explanation = asyncio.run(VlmExplainer(model).explain(source.of(0), image))
    assert broken.image_id not in explanation.codes.values()
    assert len([c for c in explanation.codes if c in FIRST]) == 11
    assert explanation.label


def test_a_latent_whose_images_have_gone_fails_for_that_and_nothing_is_asked():
    source, model = ColourSource(), Scripted()

    def image(example: Example) -> Image.Image:
        raise BadImage("gone")

    explanation = asyncio.run(VlmExplainer(model).explain(source.of(0), image))
    assert (explanation.label, explanation.failure) == (None, UNREADABLE)
    assert model.questions == []


# What becomes of the answer


def test_label_and_description_are_linted_and_provenance_is_kept():
    model = Scripted()
    explanation = explained(model)
    assert explanation.label == "round mark"
    assert explanation.second_label is None
    assert explanation.candidates == ("round mark",)
    assert (explanation.calls, explanation.usd) == (("k1",), 0.5)
    assert (explanation.model, explanation.prompt) == ("scripted", VlmExplainer(model).prompt)
    assert list(explanation.codes) == [*FIRST, *SECOND]
    assert all(split_of(image_id) == "explain" for image_id in explanation.codes.values())


def test_remarks_of_the_linter_are_kept():
    source, model = ColourSource(), Scripted()
    explained(model, source)
    text = answer(model.questions[0], label="Sketch of a disc", description="word " * 50)
    explanation = explained(Scripted(text), source)
    assert explanation.label == "disc"
    assert set(explanation.lint) == {"medium_stripped", "class_name", "description_long"}


def test_images_under_64_pixels_are_remarked():
    source = ColourSource()
    explainer = VlmExplainer(Scripted())
    explanation = asyncio.run(
        explainer.explain(source.of(0), lambda e: draw("red", e.image_id, size=40))
    )
    assert "low_resolution" in explanation.lint


def test_a_latent_with_fewer_than_three_images_is_not_explained():
    model = Scripted()
    explanation = explained(model, ColourSource(n_top=1))
    assert (explanation.label, explanation.failure) == (None, "too_few_images")
    assert model.questions == []


def test_an_unusable_answer_is_mended_and_both_are_paid():
    explanation = explained(Scripted("I like it."))
    assert explanation.label == "round mark"
    assert (explanation.calls, explanation.usd) == (("k1", "k2"), 1.0)


def test_an_answer_that_stays_unusable_is_a_failure_and_never_a_label():
    explanation = explained(Scripted("I like it.", '{"label": "a dog"}'))
    assert (explanation.label, explanation.failure) == (None, "wrong_keys")
    assert (explanation.calls, explanation.usd) == (("k1", "k2"), 1.0)


def test_a_label_of_nothing_but_stops_is_a_failure():
    model = Scripted()
    explained(model)
    text = answer(model.questions[0], label=" .. ")
    assert explained(Scripted(text, text)).failure == "invalid"


def test_settings_are_part_of_the_fingerprint():
    prompts = {
        VlmExplainer(Scripted(), config).prompt
        for config in (
            ExplainConfig(),
            ExplainConfig(cell=336),
            ExplainConfig(show=ShowConfig(n_negatives=9)),
            ExplainConfig(layout="separate"),
        )
    }
    assert len(prompts) == 4
