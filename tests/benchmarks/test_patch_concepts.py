"""The benchmark of patch latents against masks: planted latents come out as what they are."""

from __future__ import annotations

import sys

import numpy as np

from sae.world.drawing.draw import draw
from sae.world.scene.scene import sample
from sae.world.write import MASK_NAMES
from tests.support.paths import BENCHMARKS

sys.path.append(str(BENCHMARKS))

from patch_concepts import CONCEPTS, Firing, concept_patches, keep_peaks, measure

N, PATCHES = 400, 16
NAMES = [concept.name for concept in CONCEPTS]


def test_a_latent_that_follows_a_concept_passes_and_one_that_follows_none_does_not() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((N, 5, PATCHES), bool)
    for concept in range(5):  # on a tenth of the images a block of four patches
        for image in np.flatnonzero(rng.random(N) < 0.1):
            start = rng.integers(0, PATCHES - 4)
            masks[image, concept, start : start + 4] = True
    faithful = np.argwhere(masks[:, 3])
    half = np.concatenate([faithful, rng.integers(0, [N, PATCHES], (len(faithful), 2))])
    blind = rng.integers(0, [N, PATCHES], (300, 2))
    parts = [(pairs, np.full(len(pairs), i)) for i, pairs in enumerate((faithful, half, blind))]
    pairs, latents = (np.concatenate(column) for column in zip(*parts, strict=True))
    firing = Firing(pairs[:, 0], pairs[:, 1], latents, np.ones(len(pairs), np.float32))
    found = measure(firing, 4, masks, n_shuffles=200)
    assert found.concepts[:2].tolist() == [3, 3]
    assert found.live.tolist() == [True, True, True, False]
    assert found.passes.tolist() == [True, True, False, False]
    odd = pairs[:, 0] % 2 == 1
    inside = masks[pairs[:, 0], 3, pairs[:, 1]]
    for latent in (0, 1):
        own = inside[odd & (latents == latent)].mean()
        assert np.isclose(found.precision[latent], own)


def test_the_most_active_patch_of_each_image_is_kept() -> None:
    firing = Firing(
        np.array([0, 0, 1, 0]),
        np.array([5, 6, 7, 8]),
        np.array([2, 2, 2, 3]),
        np.array([1, 4, 2, 3], np.float32),
    )
    found = keep_peaks(firing, 4)
    assert sorted(zip(found.images, found.latents, found.patches, strict=True)) == [
        (0, 2, 6),
        (0, 3, 8),
        (1, 2, 7),
    ]


def test_concepts_lie_where_the_scene_has_them() -> None:
    seeds = [s for s in range(400) if len(sample(s, "photo").names) == 2][:3]
    for seed in seeds:
        scene = sample(seed, "photo")
        masks = draw(scene, 128).masks
        numbers = np.zeros((128, 128), np.uint8)
        for placed, mask in zip(scene.objects, masks, strict=True):
            numbers[mask] = MASK_NAMES.index(placed.name)
        found = dict(zip(NAMES, concept_patches(scene, numbers, [8, 8]), strict=True))
        share = masks.reshape(2, 8, 16, 8, 16).mean((2, 4)).reshape(2, 64)
        for placed, mine in zip(scene.objects, share, strict=True):
            assert found[placed.name].tolist() == (mine >= 1 / 8).tolist()
        assert found[scene.background].tolist() == (share.sum(0) < 1 / 8).tolist()
        assert not found["dashed"].any()
        colours = {placed.colour for placed in scene.objects}
        if len(colours) == 2:
            first = scene.objects[0]
            assert found[first.colour].tolist() == found[first.name].tolist()
