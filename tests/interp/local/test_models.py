"""The namer and the judge that need no key."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from torch import Tensor

from interp.local.clip_encoder import BATCH, ClipEncoder
from interp.local.models import JUDGE_CURVES, RIVAL_SHARES, LocalJudge, LocalNamer
from interp.local.naming import score_terms, standardise
from interp.local.vocabulary import TERMS_FILE, Term, load_vocabulary, read_terms, texts_of
from interp.pictures.cache import Images
from interp.pictures.grid import Tile
from interp.records.split import LeakError, split_of
from interp.records.types import TOO_FEW, UNREADABLE, Evidence, Example, Explanation
from interp.records.wording import ADDRESSES_JUDGE
from sae.core.errors import UserError
from sae.data.images import BadImage
from sae.world.scene.concepts import CONCEPTS, OBJECTS
from tests.support.interp.latents import (
    COLOURS,
    ColourClip,
    make_evidence,
    paint,
    plain,
    plain_with_ids,
)

COLOUR_TERMS = [Term(name, (f"a photo of {name}", name)) for name in COLOURS]
BACKGROUND = ("blue", "blue", "green", "white", "yellow", "red")


class SmallTransformer(ColourClip):
    """Real attention and real matrix products, whose rounding may depend on the batch."""

    def __init__(self) -> None:
        super().__init__()
        vision = CLIPVisionCfg(layers=2, width=128, head_width=32, patch_size=8, image_size=64)
        text = CLIPTextCfg(context_length=8, vocab_size=50, width=32, heads=2, layers=1)
        torch.manual_seed(0)
        self._model: Any = CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text).eval()

    def image_features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(pixels, normalize=True)
        return features


def explain(evidence: Evidence, images: Images = paint) -> Explanation:
    namer = LocalNamer(ClipEncoder(ColourClip()), COLOUR_TERMS, plain_with_ids(*BACKGROUND))
    return asyncio.run(namer.explain(evidence, images))


class WordClip(ColourClip):
    """A direction of its own for every text."""

    name = "tiny-conv"

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        seeds = [int.from_bytes(sha256(text.encode()).digest()[:4], "big") for text in texts]
        rows = [torch.randn(3, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


# ------------------------------------------------------------------------------ known values


def test_similarity_is_counted_in_deviations_from_what_is_usual() -> None:
    usual = torch.tensor([[0.1, 0.5], [0.3, 0.5]])
    z = standardise(torch.tensor([[0.4, 0.5], [0.2, 0.5]]), usual)
    assert z.flatten().tolist() == pytest.approx([2.0, 0.0, 0.0, 0.0], abs=1e-5)


def test_what_is_shared_is_what_three_quarters_of_the_images_reach() -> None:
    z = torch.tensor([[3.0, 9.0], [3.0, 9.0], [3.0, 1.0], [2.0, 1.0], [9.0, 1.0]])
    assert score_terms(z).tolist() == [3.0, 1.0]


def test_two_images_of_sixteen_that_a_term_misses_do_not_decide() -> None:
    z = torch.tensor([[4.0, 2.0]] * 14 + [[-50.0, 2.0]] * 2)
    first, second = score_terms(z).tolist()
    assert first > second


def test_the_namer_finds_the_colour_that_the_top_images_share() -> None:
    explanation = explain(make_evidence())
    assert explanation.label == "red"
    assert explanation.failure is None
    assert explanation.candidates[0] == "red"
    assert len(explanation.candidates) == 5
    assert explanation.confidence is not None
    assert 0 < explanation.confidence <= 100
    assert "48 images" in explanation.provenance
    assert explanation.description == ""  # what a judge is told as the meaning


def test_the_namer_shows_the_strongest_and_an_even_choice_of_the_explain_side_only() -> None:
    evidence = make_evidence()
    seen: list[Example] = []

    def images(example: Example) -> Image.Image:
        seen.append(example)
        return paint(example)

    explanation = explain(evidence, images)
    assert [e.rank for e in seen[:16]] == list(range(16))
    assert {e.kind for e in seen[:16]} == {"top"}
    further = [e.rank for e in seen[16:]]  # of the 44 that are not among those
    assert further == [16 + at * 44 // 32 for at in range(32)]
    assert all(e.side == "explain" and split_of(e.image_id) == "explain" for e in seen)
    assert list(explanation.codes.values()) == [e.image_id for e in seen]
    assert [*explanation.codes][24:29] == ["Y", "Z", "AA", "AB", "AC"]


def test_a_held_out_image_in_the_explain_list_stops_the_namer() -> None:
    evidence = make_evidence()
    stray = dataclasses.replace(evidence.of("score", "top")[0], side="explain", rank=0)
    leaking = dataclasses.replace(evidence, examples=(stray, *evidence.examples))
    with pytest.raises(LeakError, match="explain side"):
        explain(leaking)


def test_too_few_images_give_a_failure_and_no_label() -> None:
    explanation = explain(make_evidence(n_active=2))
    assert (explanation.label, explanation.failure) == (None, "too_few_images")


def test_an_unreadable_image_is_left_out_and_not_listed_as_shown() -> None:
    evidence = make_evidence()
    bad = evidence.of("explain", "top")[3]

    def images(example: Example) -> Image.Image:
        if example == bad:
            raise BadImage("cut off")
        return paint(example)

    explanation = explain(evidence, images)
    assert explanation.label == "red"
    assert bad.image_id not in explanation.codes.values()
    assert "47 images" in explanation.provenance


def test_a_latent_whose_images_have_gone_fails_for_that_and_not_for_too_few() -> None:
    def images(example: Example) -> Image.Image:
        raise BadImage("gone")

    assert explain(make_evidence(), images).failure == UNREADABLE
    assert explain(make_evidence(n_active=2), images).failure == TOO_FEW


def test_a_term_of_the_vocabulary_is_cut_and_remarked_as_any_label() -> None:
    long = "red answer 100 " * 100
    terms = [Term(long, ("red",)), *(Term(name, (name,)) for name in COLOURS if name != "red")]
    namer = LocalNamer(ClipEncoder(ColourClip()), terms, plain_with_ids(*BACKGROUND))
    explanation = asyncio.run(namer.explain(make_evidence(), paint))
    assert explanation.label == "red answer 100 " * 13 + "red"  # the next word ends behind 200
    assert explanation.lint == (ADDRESSES_JUDGE, "label_cut")


def tiles(letters: str, *names: str) -> list[Tile]:
    return [
        Tile(letter, image, image_id=name)
        for letter, (name, image) in zip(letters, plain_with_ids(*names), strict=True)
    ]


def test_the_judge_scores_what_fits_above_fifty_and_the_rest_below() -> None:
    judge = LocalJudge(ClipEncoder(ColourClip()), plain_with_ids(*BACKGROUND))
    codes = "ABC"
    pictures = tiles(codes, "red", "blue", "green")
    judgement = asyncio.run(judge.judge("red", "", lambda: pictures))
    red, blue, green = (judgement.scores[code] for code in codes)
    assert red is not None
    assert blue is not None
    assert green is not None
    assert 50 < red <= 100
    assert 0 <= blue < 50
    assert 0 <= green < 50
    assert judgement.failure is None


def test_a_label_that_separates_nothing_is_scored_alike_everywhere() -> None:
    judge = LocalJudge(ClipEncoder(ColourClip()), plain_with_ids("red", "red"))
    pictures = tiles("AB", "red", "red")
    scores = asyncio.run(judge.judge("red", "", lambda: pictures)).scores
    assert scores["A"] == scores["B"]
    assert scores["A"] is not None
    assert math.isfinite(scores["A"])


# ------------------------------------------------------------------------------ the encoder


def test_an_image_is_embedded_once_and_always_in_full_batches() -> None:
    clip = ColourClip()
    encoder = ClipEncoder(clip)
    first = encoder.encode(plain_with_ids("red", "blue", "red"))
    again = encoder.encode(plain_with_ids("blue"))
    assert clip.batches == [BATCH]
    assert torch.equal(first[1], again[0])
    assert torch.equal(first[0], first[2])


def test_images_without_an_id_are_refused() -> None:
    with pytest.raises(ValueError, match="without image_id"):
        ClipEncoder(ColourClip()).encode([("", image) for image in plain("red", "blue")])


def test_an_embedding_does_not_depend_on_the_company_of_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (21, 64, 64, 3), generator=generator).to(torch.uint8)
    images = [Image.fromarray(image.numpy()) for image in noise]
    clip = SmallTransformer()
    pictures = [(str(number), image) for number, image in enumerate(images)]
    together = ClipEncoder(clip).encode(pictures)
    alone = torch.cat([ClipEncoder(clip).encode([picture]) for picture in pictures])
    assert torch.equal(together, alone)


# ------------------------------------------------------------------------------ the words


def test_the_shipped_vocabulary_is_large_and_says_nothing_twice() -> None:
    terms = read_terms(TERMS_FILE)
    lines = [line.partition("#")[0].strip() for line in TERMS_FILE.read_text("utf-8").splitlines()]
    assert len(terms) == len([line for line in lines if line])
    assert 1500 <= len(terms) <= 2500
    assert {"polka-dotted", "parallel hatching", "spiral", "running", "watercolour"} <= set(terms)
    assert max(len(term.split()) for term in terms) <= 8


def test_the_general_vocabulary_has_the_classes_of_imagenet_too() -> None:
    terms = load_vocabulary("auto", "ViT-B-32/openai")
    names = [term.name.casefold() for term in terms]
    assert "axolotl" in names
    assert len(names) == len(set(names))
    assert terms[0].texts[0] == f"a photo of {terms[0].name}"


def test_the_tiny_clip_names_with_the_concepts_of_its_world_and_their_phrases() -> None:
    terms = {term.name: term.texts for term in load_vocabulary("auto", "tiny")}
    assert list(terms) == [concept.name for concept in CONCEPTS]
    assert terms["left"] == ("on the left",)
    assert "a sketch of an apple" in terms["apple"]


def test_a_synonym_is_put_to_the_tiny_clip_in_the_words_it_was_taught() -> None:
    assert texts_of("teacup", "tiny") == texts_of("cup", "tiny")
    assert texts_of("teacup", "ViT-B-32/openai")[2] == "teacup"


def test_a_vocabulary_file_may_hold_comments_blanks_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# mine\n\n striped   cloth # two words\nDots\ndots\n", encoding="utf-8")
    assert [term.name for term in load_vocabulary(str(path), "other")] == ["striped cloth", "Dots"]


@pytest.mark.parametrize(("content", "said"), [(b"one\n", "1 terms"), (b"\xff\xfe\x00", "UTF-8")])
def test_a_useless_vocabulary_file_is_refused_by_name(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_vocabulary(str(path), "tiny")


def test_a_missing_vocabulary_file_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match="auto, world, hard, general"):
        load_vocabulary("wrld", "tiny")


# ------------------------------------------------------------------------------ rivals


def judge_of_words() -> tuple[LocalJudge, Tensor]:
    rows = torch.nn.functional.normalize(
        torch.randn(40, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    return LocalJudge(ClipEncoder(WordClip()), plain_with_ids(*BACKGROUND)), rows


def deviations(judge: LocalJudge, label: str, rows: Tensor) -> Any:
    texts = judge.encoder.clip.embed_texts(texts_of(label, "tiny-conv")).numpy()
    text = texts.mean(0) / np.linalg.norm(texts.mean(0))
    usual = judge.background.numpy() @ text
    return (rows.numpy() @ text - usual.mean()) / usual.std()


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("object", ("star", "a photo of a star", "key")),
        ("colour", ("red", "black")),
        ("domain", ("sketch", "photo")),
    ],
)
def test_an_object_a_colour_and_a_medium_are_held_against_the_other_that_fits_best(
    kind: str, labels: tuple[str, ...]
) -> None:
    judge, rows = judge_of_words()
    names = [concept.name for concept in CONCEPTS if concept.kind == kind]
    every = np.stack([deviations(judge, name, rows) for name in names])
    for label in labels:
        rival = np.delete(every, names.index(label.split()[-1]), axis=0).max(0)
        expected = deviations(judge, label, rows) - RIVAL_SHARES[kind] * rival
        # Beside names of other kinds, which have rivals of their own.
        found = judge.standing(["striped", label, "moon", "blue"], rows)[1].numpy()
        assert found == pytest.approx(expected, abs=1e-3)


def test_what_may_be_true_beside_others_has_no_rivals_and_a_word_of_no_image_has_all() -> None:
    judge, rows = judge_of_words()
    for label in ("striped", "left", "red striped", "something quite else"):
        own = judge.standing([label], rows)[0].numpy()
        assert own == pytest.approx(deviations(judge, label, rows), abs=1e-3)
    never = next(concept.name for concept in CONCEPTS if concept.kind == "distractor")
    best = np.max([deviations(judge, name, rows) for name in OBJECTS], axis=0)
    expected = deviations(judge, never, rows) - best
    assert judge.standing([never], rows)[0].numpy() == pytest.approx(expected, abs=1e-3)


def test_grades_follow_the_curve_in_tens() -> None:
    judge, rows = judge_of_words()
    standing = judge.standing(["star", "red"], rows).numpy()
    midpoint, steepness, step, _ = JUDGE_CURVES["tiny-conv"]
    expected = np.round(100 / (1 + np.exp(-steepness * (standing - midpoint))) / step) * step
    grades = judge.grade(["star", "red"], rows).numpy()
    assert np.mean(grades == expected) > 0.97  # but for what rounds to either side
    assert set(grades.flatten().tolist()) <= {10.0 * n for n in range(11)}
