"""Images are read once and held within bounds; what is drawn from them stays the same."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from interp.pictures.cache import Lru, PictureCache, read_images
from interp.pictures.grid import LARGEST, Tile, compose, shrink
from interp.records.types import Evidence, Example
from sae.data.images import BadImage
from tests.support.interp.latents import make_evidence, paint

EXAMPLES = make_evidence().of("score", "top")


class Counting:
    """An `EvidenceSource` that counts what it reads."""

    def __init__(self, draw: Callable[[Example], Image.Image] = paint) -> None:
        self.draw = draw
        self.read: list[str] = []

    def of(self, latent: int) -> Evidence:
        return make_evidence(latent)

    def image(self, example: Example) -> Image.Image:
        self.read.append(example.image_id)
        return self.draw(example)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_an_image_is_read_once_however_many_latents_show_it() -> None:
    source = Counting()
    cache = PictureCache(source)
    first = [cache.image(example) for example in EXAMPLES[:3]]
    again = [cache.image(dataclasses.replace(example, latent=8)) for example in EXAMPLES[:3]]
    assert source.read == [example.image_id for example in EXAMPLES[:3]]
    assert all(one is two for one, two in zip(first, again, strict=True))


@pytest.mark.parametrize("size", [(2000, 1500), (600, 700), (500, 375), (40, 30), (2000, 3)])
@pytest.mark.parametrize("cell", [224, 448])
def test_a_page_of_cached_images_has_the_bytes_of_one_without_the_cache(
    size: tuple[int, int], cell: int
) -> None:
    source = Counting(lambda example: noise(*size))
    cached = PictureCache(source).image(EXAMPLES[0])
    assert max(cached.size) <= LARGEST
    plain = compose([Tile("A", source.image(EXAMPLES[0]))], 1, cell)
    assert compose([Tile("A", cached)], 1, cell) == plain


def test_only_images_over_512_pixels_are_scaled_and_keep_their_shape() -> None:
    assert shrink(noise(500, 375)).size == (500, 375)
    assert shrink(noise(1024, 300)).size == (512, 150)
    assert shrink(noise(3000, 2)).size == (512, 1)
    assert shrink(noise(9, 9).convert("L")).mode == "RGB"


def test_an_image_that_cannot_be_read_is_left_out_and_tried_again() -> None:
    bad = EXAMPLES[1].image_id

    def draw(example: Example) -> Image.Image:
        if example.image_id == bad:
            raise BadImage("cut off")
        return paint(example)

    source = Counting(draw)
    cache = PictureCache(source)
    for _ in range(2):
        assert list(read_images(cache.image, EXAMPLES[:3])) == [EXAMPLES[0], EXAMPLES[2]]
    assert source.read.count(bad) == 2
    source.draw = paint
    assert len(read_images(cache.image, EXAMPLES[:3])) == 3


def test_two_threads_that_ask_for_one_image_wait_for_one_reading() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def draw(example: Example) -> Image.Image:
        reading.set()
        assert go_on.wait(10)
        return paint(example)

    source = Counting(draw)
    cache = PictureCache(source)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.image, EXAMPLES[0])
        assert reading.wait(10)
        second = threads.submit(cache.image, EXAMPLES[0])
        go_on.set()
        assert first.result(10) is second.result(10)
    assert len(source.read) == 1


def test_one_slow_image_does_not_hold_up_another() -> None:
    go_on = threading.Event()

    def draw(example: Example) -> Image.Image:
        if example is EXAMPLES[0]:
            assert go_on.wait(10)
        return paint(example)

    cache = PictureCache(Counting(draw))
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(cache.image, EXAMPLES[0])
        assert threads.submit(cache.image, EXAMPLES[1]).result(10)
        assert not slow.done()
        go_on.set()
        assert slow.result(10)


def test_what_was_not_asked_for_longest_leaves_first() -> None:
    lru: Lru[str] = Lru(10, len)
    made: list[str] = []

    def get(key: str) -> None:
        lru.get(key, lambda: made.append(key) or 4 * key)  # type: ignore[func-returns-value]

    for key in "abacab":
        get(key)
    assert made == ["a", "b", "c", "b"]  # b was older than a when c came
    assert (lru.n_bytes, len(lru)) == (8, 2)


def test_a_value_larger_than_the_cache_is_given_and_not_held() -> None:
    lru: Lru[str] = Lru(3, len)
    assert lru.get("x", lambda: "wide") == "wide"
    assert (lru.n_bytes, len(lru)) == (0, 0)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 30))
def test_the_cache_never_holds_more_than_it_may_and_is_never_wrong(
    keys: list[int], most: int
) -> None:
    lru: Lru[bytes] = Lru(most, len)
    for key in keys:
        assert lru.get(key, lambda key=key: bytes(key)) == bytes(key)  # type: ignore[misc]
        assert lru.n_bytes <= most


def test_many_threads_over_a_small_cache_get_the_right_images_within_bounds() -> None:
    source = Counting()
    cache = PictureCache(source, most_bytes=5 * 4 * 32 * 32)
    asked = [EXAMPLES[n * n % 13] for n in range(400)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(cache.image, asked))
    assert all(
        image.tobytes() == paint(example).tobytes()
        for image, example in zip(found, asked, strict=True)
    )
    lru = cache._decoded
    assert lru.n_bytes == 4 * 32 * 32 * len(lru) <= 5 * 4 * 32 * 32


def test_the_cache_gives_the_evidence_of_its_source() -> None:
    assert PictureCache(Counting()).of(7) == make_evidence(7)
