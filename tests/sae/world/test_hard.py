"""The hard tier: conjunctions are true of one object, rare, and can be read back from the files."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from interp.bench.truth import read_truth
from interp.local.vocabulary import load_vocabulary
from sae.core.errors import OK, USAGE, UserError
from sae.world import (
    BY_NAME,
    CONJUNCTIONS,
    TIERS,
    Concept,
    Placed,
    Scene,
    caption,
    concept_named,
    concepts_of,
    conjunctions_of,
    names_same_concept,
    sample_hard,
    write_world,
)
from sae.world.drawing.draw import draw
from sae.world.objects.catalogue import DRAWN
from sae.world.scene.scene import HIDDEN_ON
from sae.world.write import MASK_NAMES
from tests.support.commands import sae

N = 66
SCENES = [sample_hard(seed) for seed in range(1500)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hard") / "world"
    words = ("--tier", "hard", "--seed", 2, "--size", 32, "--masks", "--workers", 1)
    assert sae("world", "--n", N, "--out", out, *words) == OK
    return out


def _red_and_striped(*, of_one: bool) -> Scene:
    red = Placed("cup", (-0.6, 0), 0.2, 0, 1, "small", "left", "red", "striped" if of_one else "")
    blue = Placed(
        "star", (0.6, 0), 0.2, 0, 1, "small", "right", "blue", "" if of_one else "striped"
    )
    return Scene(0, "photo", (red, blue), "", "upright", "", background="sand")


def test_a_conjunction_needs_one_object_that_is_both() -> None:
    both, apart = _red_and_striped(of_one=True), _red_and_striped(of_one=False)
    assert concepts_of(both) == concepts_of(apart) >= {"red", "striped", "blue", "two", "pair"}
    assert "red striped" in conjunctions_of(both)
    assert "red striped" not in conjunctions_of(apart)
    assert {"blue striped", "small star", "small star on the right"} <= conjunctions_of(apart)


def test_there_are_over_200_conjunctions_of_planted_parts_and_each_is_named_by_its_words() -> None:
    assert len(CONJUNCTIONS) > 200
    assert len({frozenset(c.parts) for c in CONJUNCTIONS}) == len(CONJUNCTIONS)
    assert len(TIERS["hard"]) == 101 + len(CONJUNCTIONS) == len({c.name for c in TIERS["hard"]})
    for concept in CONJUNCTIONS:
        assert concept_named(concept.name) is concept is BY_NAME[concept.name]
        assert concept_named(f"A photo of {concept.phrase}.") is concept


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("red striped", "red striped"),
        ("Striped, red objects", "red striped"),
        ("a red thing with stripes", "red striped"),
        ("a little disc on the left side", "small circle on the left"),
        ("left: small circles", "small circle on the left"),
        ("an inverted mug", "upside down cup"),
        ("red", "red"),
        ("small house", "house"),
    ],
)
def test_the_order_and_choice_of_words_do_not_matter(label: str, name: str) -> None:
    assert names_same_concept(label, name)


@pytest.mark.parametrize("label", ["red striped cup", "red or striped", "red dog", "red and blue"])
def test_what_says_more_or_something_else_names_no_conjunction(label: str) -> None:
    assert concept_named(label) is None


def test_most_conjunctions_are_rare_and_none_is_never_there() -> None:
    found = Counter(name for scene in SCENES for name in conjunctions_of(scene))
    rates = np.array([found[c.name] / len(SCENES) for c in CONJUNCTIONS])
    assert np.median(rates) < 0.03
    assert 40 < (rates < 0.01).sum() < 150
    assert (rates > 0).mean() > 0.97


def test_objects_of_a_scene_differ_and_claims_show() -> None:
    n_small = n_mixed = n_covered = 0
    for scene in SCENES:
        assert len(scene.names) == len(scene.objects) <= 3
        colours = [placed.colour for placed in scene.objects]
        assert len({*colours} - {""}) == (len(colours) if scene.domain == "photo" else 0)
        n_mixed += len({placed.pattern for placed in scene.objects}) > 1
        for placed in scene.objects:
            drawn, reach = DRAWN[placed.name], np.abs(placed.centre).max() + 0.8 * placed.scale
            assert placed.colour not in HIDDEN_ON.get(scene.background, ())
            assert not placed.pattern or drawn.patterned
            assert placed.orientation != "tilted" or drawn.tiltable
            assert placed.orientation != "upside down" or drawn.flippable
            assert reach < 1.0
            n_small += placed.size == "small"
        if len(scene.objects) > 1:
            (x, y), (a, b) = scene.objects[0].centre, scene.objects[1].centre
            n_covered += np.hypot(x - a, y - b) < 0.9 * sum(o.scale for o in scene.objects[:2])
    assert min(n_small, n_mixed) > 0.3 * len(SCENES)
    assert n_covered > 0.1 * len(SCENES)


def test_an_object_in_front_leaves_enough_of_the_one_behind() -> None:
    shares = []
    for scene in SCENES[:60]:
        alone = [draw(Scene(**{**vars(scene), "objects": (o,)}), 64) for o in scene.objects]
        for seen, whole in zip(draw(scene, 64).masks, alone, strict=True):
            shares.append(seen.sum() / whole.masks[0].sum())
    assert np.quantile(shares, 0.02) > 0.3
    assert np.mean(np.array(shares) < 0.95) > 0.05


def test_each_object_has_its_own_pattern_on_the_picture() -> None:
    for domain in ("sketch", "photo"):
        shades = []
        for pattern in ("", "checkered"):
            left = Placed("square", (-0.6, 0), 0.25, 0, 1, "small", "left", "red", pattern)
            right = Placed("square", (0.6, 0), 0.25, 0, 1, "small", "right", "blue", "striped")
            scene = Scene(5, domain, (left, right), "", "upright", "", background="plain")
            shades.append(draw(scene, 64).pixels.astype(int))
        changed = np.abs(shades[0] - shades[1]).max(2) > 40
        assert changed[:, :32].mean() > 0.02
        assert not changed[:, 32:].any()


def test_captions_of_a_hard_scene_are_true_of_its_objects() -> None:
    for seed, scene in enumerate(SCENES[:300]):
        text = caption(scene, np.random.default_rng(seed), mention=1.0)
        for placed in scene.objects:
            noun = next(w for w in (placed.name, *BY_NAME[placed.name].synonyms) if w in text)
            group = text[: text.index(noun)].rsplit(" and ", 1)[-1]
            said = {n for n in ("striped", "spotted", "checkered") if n in group}
            assert said <= {placed.pattern}, text
        assert not re.search(r"\b(a|and|above)\s\s", text)


def test_truth_tells_each_object_and_every_conjunction(world: Path) -> None:
    info = json.loads((world / "world.json").read_text())
    assert (info["tier"], info["n"]) == ("hard", N)
    for i, row in enumerate(pq.read_table(world / "truth.parquet").to_pylist()):
        scene = sample_hard(20_000_000 + i)
        assert (row["seed"], row["label"]) == (scene.seed, scene.label)
        # From the objects alone: a conjunction holds where one of them has all its parts.
        own = [set(thing.values()) for thing in row["objects"]]
        for concept in CONJUNCTIONS:
            assert row[concept.name] == any(set(concept.parts) <= one for one in own)
        assert {c.name for c in TIERS["easy"] if row[c.name]} == concepts_of(scene)
        mask = np.asarray(Image.open(world / "masks" / row["path"]))
        assert {MASK_NAMES[v] for v in np.unique(mask)} <= {"background", *scene.names}


def test_the_bench_and_the_local_namer_read_a_hard_world(world: Path) -> None:
    truth = read_truth(world / "truth.parquet")
    assert list(truth.select_dtypes(bool).columns) == [c.name for c in TIERS["hard"]]
    terms = {term.name: term.texts for term in load_vocabulary("hard", "tiny")}
    assert terms["red striped"] == ("a striped red object",)
    assert len(terms) == 131 + len(CONJUNCTIONS)


def test_a_world_is_of_one_tier(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tier hard"):
        write_world(world, N, 2, 32, masks=True)
    write_world(world, N, 2, 32, masks=True, tier="hard")
    assert sae("world", "--out", tmp_path / "w", "--tier", "harder") == USAGE
    assert not (tmp_path / "w").exists()


def test_a_conjunction_says_its_parts() -> None:
    concept: Concept = BY_NAME["small circle on the left"]
    assert concept.parts == ("small", "circle", "left")
    assert concept.phrase == "a small circle on the left"
