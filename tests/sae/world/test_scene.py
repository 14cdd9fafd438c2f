"""The words and scenes of the drawn world: what is said of a scene is true of it."""

from __future__ import annotations

import dataclasses
import gzip
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer

from sae.world import (
    CONCEPTS,
    OBJECTS,
    PLANTED,
    Concept,
    Placed,
    Scene,
    caption,
    concept_named,
    concepts_of,
    names_same_concept,
    one_attribute_caption,
    sample,
)
from sae.world.objects.catalogue import DRAWN
from sae.world.scene.captions import plural, with_article
from sae.world.scene.random import Stream, stream
from sae.world.scene.scene import CLEARLY_ASIDE, HIDDEN_ON
from sae.world.tiny_clip.tokenizer import (
    CONTEXT_LENGTH,
    VOCABULARY,
    build,
    needed_merges,
    world_words,
)

SCENES = [sample(seed) for seed in range(600)]
LITTLE_WORDS = frozenset(
    re.findall(
        r"\w+", "a an of and in on at the to next above showing object something sets groups"
    )
)


def test_the_table_holds_59_objects_101_planted_concepts_and_30_distractors() -> None:
    assert len(OBJECTS) == 59
    assert len(PLANTED) == 101
    assert len(CONCEPTS) - len(PLANTED) == 30
    assert set(OBJECTS) == set(DRAWN)


def test_no_wording_belongs_to_two_concepts() -> None:
    owners = Counter(w for c in CONCEPTS for w in {c.name, c.phrase, *c.synonyms})
    assert [wording for wording, n in owners.items() if n > 1] == []


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.name)
def test_every_wording_names_its_own_concept(concept: Concept) -> None:
    for wording in (concept.name, concept.phrase, *concept.synonyms):
        assert concept_named(wording) is concept
        assert concept_named(f"A sketch of {wording}.") is concept


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("apple", "apple"),
        ("Apples", "apple"),
        ("the apple.", "apple"),
        ("drawings of leaves", "leaf"),
        ("butterflies", "butterfly"),
        ("cactuses", "cactus"),
        ("snowmen", "snowman"),
        ("a MUG", "cup"),
        ("teacups", "cup"),
        ("moon", "crescent"),
        ("a photograph of a bullseye", "rings"),
        ("a rough sketch of concentric circles", "rings"),
        ("a ring", "ring"),
        ("red objects", "red"),
        ("striped pattern", "striped"),
        ("dashed lines", "dashed"),
        ("drawings", "sketch"),
        ("a plain background", "plain"),
        ("two things", "two"),
    ],
)
def test_a_label_in_other_words_names_the_same_concept(label: str, name: str) -> None:
    assert names_same_concept(label, name)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ring", "rings"),
        ("rings", "ring"),
        ("fruit", "apple"),
        ("red apple", "apple"),
        ("tree", "pine"),
        ("pine", "tree"),
        ("apple objects", "apple"),
        ("", "apple"),
        ("two objects", "pair"),
    ],
)
def test_a_label_of_something_else_does_not(label: str, name: str) -> None:
    assert not names_same_concept(label, name)


def test_an_unknown_concept_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        names_same_concept("apple", "aple")


def test_a_seed_gives_the_same_scene_every_time() -> None:
    assert [sample(seed) for seed in range(50)] == SCENES[:50]
    assert len({scene.objects for scene in SCENES}) == len(SCENES)


def test_both_domains_show_the_same_objects_in_the_same_places() -> None:
    for seed in range(200):
        sketch, photo = sample(seed, "sketch"), sample(seed, "photo")
        bare = tuple(dataclasses.replace(placed, colour="") for placed in photo.objects)
        assert sketch.objects == bare
        assert (sketch.orientation, sketch.pattern) == (photo.orientation, photo.pattern)
        assert sketch.relation == photo.relation
        assert sample(seed) in (sketch, photo)


def test_every_concept_occurs_and_none_but_the_planted() -> None:
    found = Counter(name for seed in range(3000) for name in concepts_of(sample(seed)))
    assert set(found) == {concept.name for concept in PLANTED}
    assert min(found.values()) >= 30


def test_counts_come_in_the_promised_proportions() -> None:
    n_pairs = sum("pair" in concepts_of(scene) for scene in SCENES)
    assert n_pairs == pytest.approx(0.3 * len(SCENES), abs=40)
    single = [scene for scene in SCENES if len(scene.names) == 1]
    shares = Counter(len(scene.objects) for scene in single)
    for count, share in {1: 0.62, 2: 0.15, 3: 0.13, 4: 0.10}.items():
        assert shares[count] / len(single) == pytest.approx(share, abs=0.06)


def test_a_turn_is_only_claimed_where_it_shows() -> None:
    for scene in SCENES:
        drawn = [DRAWN[name] for name in scene.names]
        assert scene.orientation != "tilted" or all(d.tiltable for d in drawn)
        assert scene.orientation != "upside down" or all(d.flippable for d in drawn)
        turn = {"upright": (0.0, 0.25), "tilted": (0.25, 0.9), "upside down": (2.85, 3.5)}
        low, high = turn[scene.orientation]
        assert all(low <= abs(placed.angle) <= high for placed in scene.objects)


def test_a_position_is_claimed_for_single_objects_and_pairs_that_stand_aside() -> None:
    for scene in SCENES:
        for placed in scene.objects:
            x, y = placed.centre
            if len(scene.objects) > len(scene.names):
                assert placed.position == ""
            elif placed.position == "":
                assert max(abs(x), abs(y)) <= CLEARLY_ASIDE
            else:
                aside = {"left": -x, "right": x, "top": -y, "bottom": y}[placed.position]
                assert aside == max(abs(x), abs(y)) > CLEARLY_ASIDE


def test_a_small_object_is_smaller_than_any_medium_one() -> None:
    scales: dict[str, list[float]] = {size: [] for size in ("small", "medium", "large")}
    for scene in SCENES:
        for placed in scene.objects:
            scales[placed.size].append(placed.scale)
    assert max(scales["small"]) < min(scales["medium"])
    assert max(scales["medium"]) < 0.7 < min(scales["large"])


def test_no_colour_is_swallowed_by_its_background_and_sketches_have_none() -> None:
    for scene in SCENES:
        for placed in scene.objects:
            assert (placed.colour == "") == (scene.domain == "sketch")
            assert placed.colour not in HIDDEN_ON.get(scene.background, ())


def test_no_two_seeds_and_streams_draw_the_same_numbers() -> None:
    first = [stream(seed, s).random() for seed in (0, 1, 2**32, 2**32 + 1) for s in Stream]
    assert len(set(first)) == len(first)


def test_a_known_scene_has_known_concepts_and_captions() -> None:
    placed = Placed("apple", (-0.5, 0.0), 0.3, 0.0, 1.0, "small", "left", "red")
    other = Placed("house", (0.4, 0.0), 0.5, 0.0, 1.0, "medium", "right", "blue")
    scene = Scene(0, "photo", (placed, other), "next to", "upright", "", background="sand")
    objects, whole = {"apple", "house", "red", "blue"}, {"sand", "photo", "two", "pair"}
    assert concepts_of(scene) == objects | whole | {"small", "left", "right"}
    said = {caption(scene, np.random.default_rng(seed), mention=0.6) for seed in range(3000)}
    assert "a small red apple on the left next to a blue house" in said
    assert "a photo of an apple and a house" in said
    assert not any(
        re.search(r"small \w* ?house|apple on the right|house on the left", s) for s in said
    )


def test_a_caption_without_mentions_names_the_objects_alone() -> None:
    for scene in SCENES:
        words = caption(scene, np.random.default_rng(scene.seed), mention=0.0)
        kinds = {concept.kind for concept in _concepts_in(words)}
        assert kinds <= {"object", "count", "domain"}


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("apple", "an apple"),
        ("cactus", "a cactus"),
        ("cross", "a cross"),
        ("rings", "rings"),
        ("array of dots", "an array of dots"),
        ("upside down cup", "an upside down cup"),
    ],
)
def test_an_article_fits_its_noun(noun: str, expected: str) -> None:
    assert with_article(noun) == expected


def test_captions_name_nothing_but_what_is_true() -> None:
    named: set[str] = set()
    for scene in SCENES:
        rng = stream(scene.seed, Stream.CAPTION)
        texts = [caption(scene, rng, mention) for mention in (0.4, 0.75, 1.0)]
        texts += [one_attribute_caption(scene, rng) for _ in range(3)]
        for text in texts:
            claimed = {concept.name for concept in _concepts_in(text)}
            assert claimed <= concepts_of(scene), text
            assert claimed, text
            named |= claimed
    assert named == {concept.name for concept in PLANTED}


def test_captions_are_in_the_singular_exactly_for_one_object() -> None:
    for scene in SCENES:
        text = caption(scene, np.random.default_rng(scene.seed), mention=0.0)
        if len(scene.objects) > len(scene.names):
            assert text.endswith(plural(scene.label))


def test_captions_of_one_attribute_are_often_the_bare_phrase() -> None:
    phrases = {concept.phrase for concept in PLANTED}
    said = [one_attribute_caption(scene, np.random.default_rng(scene.seed)) for scene in SCENES]
    assert sum(text in phrases for text in said) > 0.45 * len(said)


def _concepts_in(text: str) -> list[Concept]:
    """The concepts that a text says, longest wording first; any other word must be a little one."""
    wordings = _wordings()
    words = text.split()
    found: list[Concept] = []
    while words:
        for n in range(min(5, len(words)), 0, -1):
            concept = wordings.get(" ".join(words[:n]))
            if concept is not None:
                found.append(concept)
                words = words[n:]
                break
        else:
            assert words[0] in LITTLE_WORDS, f"{words[0]!r} in {text!r}"
            words = words[1:]
    return found


def _wordings() -> dict[str, Concept]:
    wordings: dict[str, Concept] = {}
    for concept in CONCEPTS:
        forms = {concept.name, concept.phrase, *concept.synonyms}
        forms |= {plural(concept.name)} if concept.kind == "object" else set()
        for form in forms:
            bare = form.removeprefix("a ").removeprefix("an ")
            wordings[bare] = concept
    return wordings


def test_the_vocabulary_reads_as_open_clip_reads_its_own() -> None:
    small = SimpleTokenizer(bpe_path=str(VOCABULARY), context_length=CONTEXT_LENGTH)
    full = SimpleTokenizer()
    assert small.vocab_size == 1783
    for word in world_words():
        assert len(small.encode(word)) == len(full.encode(word)), word
        assert small.decode(small.encode(word)).strip() == word
    assert small.decode(small.encode("xylophone quartz")).strip() == "xylophone quartz"
    for scene in SCENES:
        rng = stream(scene.seed, Stream.CAPTION)
        for text in (caption(scene, rng, 1.0), one_attribute_caption(scene, rng)):
            assert len(small.encode(text)) + 2 <= CONTEXT_LENGTH, text


def test_the_longest_captions_fit_the_context() -> None:
    small = SimpleTokenizer(bpe_path=str(VOCABULARY), context_length=CONTEXT_LENGTH)
    first = Placed("hexagon", (-0.5, 0.0), 0.3, 0.5, 1.0, "small", "left", "orange")
    objects = (first, dataclasses.replace(first, name="ladder", position="right"))
    scene = Scene(0, "photo", objects, "next to", "tilted", "checkered", background="plain")
    texts = [caption(scene, np.random.default_rng(seed), 1.0) for seed in range(500)]
    assert max(len(small.encode(text)) for text in texts) + 2 == CONTEXT_LENGTH
    assert any("hexagonal shape" in text and "stepladder" in text for text in texts)


def test_the_vocabulary_that_ships_is_the_one_that_the_words_need(tmp_path: Path) -> None:
    assert build(tmp_path / "vocab.txt.gz") == 1783 - 512 - 2
    built = gzip.decompress((tmp_path / "vocab.txt.gz").read_bytes())
    assert built == gzip.decompress(VOCABULARY.read_bytes())


def test_needed_merges_are_the_closure_in_the_old_order() -> None:
    merges = [("c", "a"), ("d", "o"), ("ca", "t</w>"), ("do", "g</w>"), ("x", "y")]
    kept = needed_merges(["cat"], merges, {"cat": ["cat</w>"]})
    assert kept == [("c", "a"), ("ca", "t</w>")]
