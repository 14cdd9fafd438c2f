"""The drawings: the same on every machine, at every size, with masks that lie where objects are."""

from __future__ import annotations

import colorsys
import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sae.world import OBJECTS, Placed, Scene, sample
from sae.world.drawing.draw import draw
from sae.world.drawing.photo import COLOURS
from sae.world.objects.catalogue import DRAWN
from sae.world.scene.scene import PHOTO_BACKGROUNDS, Domain

Floats = NDArray[np.float64]

# 8 x 8 mean greys of four drawings, row by row.
GOLDEN: dict[tuple[int, Domain], str] = {
    (2, "sketch"): (
        "e7e7e8e7e9e9e9e9e8e7d0dadfdbeaeae8df2f4f892da7ece9e131264e29b4ed"
        "eaea652c3c2ee4eeedec84797f62ebecedededeeedececebeeeeeeeeeeececeb"
    ),
    (2, "photo"): (
        "898a90989995919086898c8b8a908c8c878553504f5378898b82595645597085"
        "8a8950382d3c7f828988584d51487e818686827f807b7f8084838383807f7d7c"
    ),
    (17, "sketch"): (
        "f6f7f7cbbae7f5f4f5f6f7957db6f5f5f3f3f3c189d8f4f4f1f0f1f194e5f5f5"
        "f1f1f1e993f4f6f6f4f3f3b989d6f6f6f6f5c09c8f97f6f7f6f7e0d2ced0f8f7"
    ),
    (29, "photo"): (
        "b0bfcececfd7cdc3adb9c8aa92bcbfc5b2b29d74739fb2bcb8b89067678fb8b8"
        "bfbfbb747bbdbfc0c7c6c6a679c6c6c6d9cdcdac7dcdcdcde6d5d4d2c6d4d4dc"
    ),
}


def _coarse(pixels: NDArray[np.uint8]) -> Floats:
    """(8, 8) mean grey."""
    size = len(pixels) // 8
    cells: Floats = pixels.mean(axis=2).reshape(8, size, 8, size).mean(axis=(1, 3))
    return cells


@pytest.mark.parametrize("key", GOLDEN)
def test_drawings_look_as_they_did_when_the_clip_was_trained(key: tuple[int, Domain]) -> None:
    seed, domain = key
    expected = np.frombuffer(bytes.fromhex(GOLDEN[key]), np.uint8).reshape(8, 8)
    seen = _coarse(draw(sample(seed, domain), 64).pixels)
    np.testing.assert_allclose(seen, expected, atol=2)


def test_a_scene_is_drawn_alike_every_time() -> None:
    for seed in range(12):
        first, second = draw(sample(seed), 96), draw(sample(seed), 96)
        assert np.array_equal(first.pixels, second.pixels)
        assert np.array_equal(first.masks, second.masks)


def test_different_seeds_give_different_pixels() -> None:
    digests = {
        hashlib.sha256(draw(sample(seed), 32).pixels.tobytes()).digest() for seed in range(40)
    }
    assert len(digests) == 40


@pytest.mark.parametrize("domain", ["sketch", "photo"])
def test_a_scene_looks_the_same_at_every_size(domain: Domain) -> None:
    for seed in range(20):
        scene = sample(seed, domain)
        small, large = draw(scene, 64), draw(scene, 128)
        reduced = Image.fromarray(large.pixels).resize((64, 64), Image.Resampling.BOX)
        assert np.abs(np.asarray(reduced, float) - small.pixels).mean() < 12
        tiny = Image.fromarray(draw(scene, 256).pixels).resize((8, 8), Image.Resampling.BOX)
        assert np.abs(np.asarray(tiny, float).mean(axis=2) - _coarse(small.pixels)).mean() < 4


def test_masks_agree_at_every_size() -> None:
    for seed in range(40):
        scene = sample(seed)
        small, large = draw(scene, 64).masks, draw(scene, 128).masks
        assert small.shape == (len(scene.objects), 64, 64)
        reduced = large.reshape(-1, 64, 2, 64, 2).mean(axis=(2, 4)) >= 0.5
        overlap = (small & reduced).sum(axis=(1, 2)) / (small | reduced).sum(axis=(1, 2))
        assert overlap.min() > 0.8


def test_masks_lie_where_their_objects_stand_and_do_not_overlap() -> None:
    for seed in range(60):
        scene = sample(seed)
        masks = draw(scene, 64).masks
        assert masks.sum(axis=0).max() == 1
        for placed, mask in zip(scene.objects, masks, strict=True):
            ys, xs = np.nonzero(mask)
            middle = np.array([xs.min() + xs.max() + 1, ys.min() + ys.max() + 1]) / 64 - 1
            assert np.abs(middle - placed.centre).max() < 0.25
            assert max(np.ptp(xs), np.ptp(ys)) / 64 == pytest.approx(placed.scale, rel=0.45)


HUES = {"red": 0, "orange": 30, "yellow": 53, "green": 127, "blue": 223, "purple": 279, "pink": 340}
"""Degrees on the colour wheel."""


@pytest.mark.parametrize("colour", COLOURS)
def test_a_photo_shows_its_colour_inside_the_mask(colour: str) -> None:
    placed = Placed("circle", (0.0, 0.0), 0.6, 0.0, 1.0, "medium", "", colour)
    scene = Scene(7, "photo", (placed,), "", "upright", "", background="plain")
    drawing = draw(scene, 64)
    hue, saturation, value = colorsys.rgb_to_hsv(
        *drawing.pixels[drawing.masks[0]].mean(axis=0) / 255
    )
    if colour in ("white", "black"):
        assert saturation < 0.35
        assert value > 0.6 if colour == "white" else value < 0.25
    else:
        expected = HUES.get(colour, 26)  # brown is a dark orange
        assert abs((hue * 360 - expected + 180) % 360 - 180) < 15
        assert (value < 0.47) == (colour in ("brown", "green"))


def test_a_sketch_is_grey_and_its_ink_lies_on_its_mask() -> None:
    for seed in range(20):
        scene = dataclasses.replace(sample(seed, "sketch"), background="blank")
        drawing = draw(scene, 128)
        assert np.ptp(drawing.pixels, axis=2).max() == 0
        inked = drawing.pixels[:, :, 0] < 150
        assert (inked & drawing.masks.any(axis=0)).sum() > 0.8 * inked.sum() > 0


def test_attributes_of_the_pen_show() -> None:
    placed = Placed("circle", (0.0, 0.0), 0.7, 0.0, 1.0, "large", "", "")
    plain = Scene(3, "sketch", (placed,), "", "upright", "")

    def ink(**changes: Any) -> float:
        return float((255 - draw(dataclasses.replace(plain, **changes), 64).pixels).mean())

    assert ink(width="thin") < ink() < ink(width="thick") < ink(filled=True)
    assert ink(stroke="dotted") < ink()
    assert ink(stroke="dashed") < ink()
    assert ink(pattern="striped") > 1.5 * ink()


@pytest.mark.parametrize("background", PHOTO_BACKGROUNDS)
def test_backgrounds_differ_from_one_another(background: str) -> None:
    placed = Placed("circle", (0.0, 0.0), 0.3, 0.0, 1.0, "small", "", "red")
    scene = Scene(5, "photo", (placed,), "", "upright", "", background=background)
    seen = draw(scene, 64).pixels.astype(float)
    for other in set(PHOTO_BACKGROUNDS) - {background}:
        pixels = draw(dataclasses.replace(scene, background=other), 64).pixels
        assert np.abs(seen - pixels).mean() > 8


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_may_be_turned_looks_turned(name: str) -> None:
    placed = Placed(name, (0.0, 0.0), 0.7, 0.0, 1.0, "medium", "", "red")
    scene = Scene(11, "photo", (placed,), "", "upright", "", background="snow")

    def seen(**changes: Any) -> Floats:
        objects = (dataclasses.replace(placed, **changes),)
        pixels = draw(dataclasses.replace(scene, objects=objects), 64).pixels
        cells: Floats = pixels.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
        return cells

    upright, all_of_it = seen(), np.abs(seen() - seen(scale=0.01)).sum()
    for angle, claimed in ((0.5, DRAWN[name].tiltable), (np.pi, DRAWN[name].flippable)):
        change = np.abs(seen(angle=angle) - upright).sum() / all_of_it
        assert not claimed or change > 0.04


@pytest.mark.parametrize("size", [32, 100, 512])
def test_any_size_from_32_to_512_is_drawn(size: int) -> None:
    for domain in ("sketch", "photo"):
        drawing = draw(sample(1, domain), size)
        assert drawing.pixels.shape == (size, size, 3)
        assert drawing.pixels.dtype == np.uint8
        assert drawing.masks.shape[1:] == (size, size)


@pytest.mark.parametrize("size", [31, 513])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        draw(sample(0), size)
