"""Pieces of a batch through the network beside each other, a thread each."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sae.clip.model import Clip
from sae.clip.vectors import PIECE, embed_batch, forward_lanes, vectors_of
from sae.core.distributed import forward_threads
from sae.data.store_format import Source
from tests.support.sae.embedded import Images, contents, run_layers


@pytest.mark.parametrize("layers", [("projected",), ("1",), ("0", "1"), ("1", "projected")])
def test_any_number_of_threads_gives_the_same_vectors(
    images: Images,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: tuple[str, ...],
) -> None:
    monkeypatch.setattr("sae.clip.vectors.PIECE", 2)
    before = torch.get_num_threads()
    made = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            folder = tmp_path / str(n_threads)
            stores = {folder / f"layer-{name}": _source(clip, name) for name in layers}
            run_layers(images, stores, clip, batch_size=9, shard_images=23)
            assert torch.get_num_threads() == n_threads
            made.append([contents(store) for store in stores])
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]


def test_pieces_of_a_batch_are_computed_at_the_same_time(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=30)
    pass_through = clip.run_through

    def meet(*arguments: object) -> object:
        both.wait()  # for ever, were there one lane
        return pass_through(*arguments)  # type: ignore[arg-type]

    wanted = [vectors_of(clip, _source(clip, "1"), "float32")]
    shape = clip.preprocess.resize(Image.new("RGB", (8, 8))).shape
    pixels = list(np.random.default_rng(0).integers(0, 256, (2 * PIECE, *shape), np.uint8))
    [alone] = embed_batch(clip, wanted, pixels, map)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(clip, "run_through", meet)
        with forward_lanes(clip, wanted, len(pixels)) as lanes:
            [x] = embed_batch(clip, wanted, pixels, lanes)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(x, alone)


def _source(clip: Clip, layer: str) -> Source:
    return Source(clip.name, layer, "cls" if layer == "projected" else "all")


def test_what_has_not_begun_is_left_when_the_work_is_stopped() -> None:
    begun, hold = [], threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        hold.wait(10)

    def stop() -> None:
        with forward_threads(torch.device("cpu"), 2) as pool:
            for number in range(50):
                pool.submit(work, number)
            threading.Timer(0.2, hold.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(begun) <= 2
