"""Embeddings that are computed when asked for are those that a store would hold."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sae.clip.live_store import LiveStore
from sae.clip.model import Clip
from sae.core.errors import FAILURES, Notice, UserError
from sae.data.store import EmbeddingStore
from sae.training.feed import batches
from tests.support.sae.embedded import Images, found, run

N = 23


def listed(images: Images, place: Path, clip: Clip, **options: object) -> EmbeddingStore:
    settings = {"dtype": "float32", "keep": False, **options}
    run(images, place, clip, "1", "patch", **settings)
    return EmbeddingStore.open(place)


def live(images: Images, place: Path, clip: Clip, **options: object) -> LiveStore:
    store = listed(images, place, clip, allow_skipped=True)
    return LiveStore(store, clip, images.roots, workers=0, **options)  # type: ignore[arg-type]


@pytest.fixture
def seen(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images that went through the network, a number for each pass."""
    counts: list[int] = []
    through = clip.run_through

    def counted(pixels: Tensor, layers: list[str]) -> object:
        counts.append(len(pixels))
        return through(pixels, layers)

    monkeypatch.setattr(clip, "run_through", counted)
    return counts


def test_it_reads_what_a_store_of_the_same_images_reads(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.clip.live_store.BATCH_IMAGES", 4)
    run(images, tmp_path / "store", clip, "1", "patch", dtype="float32")
    kept, made = EmbeddingStore.open(tmp_path / "store"), live(images, tmp_path / "list", clip)
    assert made.images.equals(kept.images)
    assert made.info.identity == kept.info.identity
    assert made.image_path(7) == kept.image_path(7)
    assert not list((tmp_path / "list").glob("*.safetensors"))
    whole = kept.read(np.arange(N))
    parts = list(made.batches(3))
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(N))
    assert torch.allclose(torch.cat([part.x for part in parts]), whole, atol=1e-5)
    rows = np.array([20, 3, 3, 11])
    assert torch.allclose(made.read(rows), whole[rows], atol=1e-5)
    tokens = np.flatnonzero(np.random.default_rng(0).random(N * 16) < 0.2)
    out = torch.empty(len(tokens), 64)
    made.read_tokens(tokens, out)
    assert torch.allclose(out, whole.flatten(0, 1)[tokens], atol=1e-5)


def test_a_list_without_its_clip_holds_no_embeddings(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    store = listed(images, tmp_path / "list", clip)
    assert store.info.on_the_fly
    with pytest.raises(UserError, match=r"is a list of images, .* `sae embed` makes a store"):
        store.read(np.array([0]))
    with pytest.raises(UserError, match="on_the_fly True, and now False"):
        run(images, tmp_path / "list", clip, "1", "patch", dtype="float32", shard_images=1 << 16)


def test_what_is_no_image_by_its_header_is_left_out_of_the_list(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    (images.roots["photo"] / "bad.png").write_bytes(b"no image")
    (images.roots["photo"] / "twin.png").write_bytes(images.files[3].path.read_bytes())
    more = found(tmp_path)
    with pytest.raises(UserError, match="add --allow-skipped"):
        listed(more, tmp_path / "list", clip)
    info = listed(more, tmp_path / "list", clip, allow_skipped=True).info
    run(more, tmp_path / "store", clip, "1", "patch", dtype="float32", allow_skipped=True)
    assert (info.n_images, info.n_skipped) == (N, 2)
    assert info.identity == EmbeddingStore.open(tmp_path / "store").info.identity


def cut(path: Path) -> None:
    """Damaged behind its header."""
    path.write_bytes(path.read_bytes()[:-200])


def test_an_image_that_is_damaged_behind_its_header_is_left_out_and_told(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    cut(images.files[5].path)
    strict = live(images, tmp_path / "list", clip)
    with pytest.raises(UserError, match=r"1 of 23 images could not be read, more than 1%") as error:
        list(strict.batches())
    assert error.value.exit_code == FAILURES
    made = live(images, tmp_path / "list", clip, allow_skipped=True)
    images.files[9].path.write_bytes(images.files[10].path.read_bytes())
    rows = np.concatenate([batch.rows for batch in made.batches()])
    assert rows.tolist() == [row for row in range(N) if row not in (5, 9)]
    assert made.readable(np.arange(4, 10)).tolist() == [4, 6, 7, 8]
    out, good = torch.empty(48, 64), made.read(np.array([4, 6]))
    made.read_tokens(np.arange(4 * 16, 7 * 16), out)
    assert torch.allclose(out[:16], good[0], atol=1e-5)
    assert torch.allclose(out[32:], good[1], atol=1e-5)
    stand_ins = torch.cdist(out[16:32], good.flatten(0, 1)).min(1).values
    assert float(stand_ins.max()) < 0.02  # what cdist rounds
    with pytest.raises(UserError, match=r"(cut short|truncated).*; put it back"):
        made.read(np.array([4, 5]))
    with pytest.raises(UserError, match="none of 1 images can be read"):
        made.read_tokens(np.arange(80, 90), torch.empty(10, 64))
    with pytest.warns(Notice, match="2 of 23 images could not be read and were left out"):
        made.report()
    made.unreadable.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.report()


@pytest.mark.parametrize("buffer_tokens", [64, 100, 10_000])
def test_a_pass_puts_each_image_through_clip_once_and_gives_each_token_once(
    images: Images, clip: Clip, tmp_path: Path, seen: list[int], buffer_tokens: int
) -> None:
    made, rows = live(images, tmp_path / "list", clip), np.arange(1, N, 2)  # 11 x 16 tokens
    known = made.read(rows).flatten(0, 1)
    seen.clear()
    stream = batches.batches(made, rows, 16, 3, torch.device("cpu"), buffer_tokens=buffer_tokens)
    taken = torch.cat([next(stream) for _ in range(11)])
    nearest = torch.cdist(taken, known).argmin(1).tolist()
    assert Counter(nearest) == Counter(range(len(known)))
    again = torch.cat([next(stream) for _ in range(11)])
    stream.close()
    images_in_window = max(1, buffer_tokens // 2 // 16)
    if buffer_tokens >= len(known):
        assert sum(seen) == 11
    else:
        assert max(seen) <= images_in_window
        assert len(set(np.array(nearest[: images_in_window * 16]) // 16)) == images_in_window
    order = torch.cdist(again, known).argmin(1).tolist()
    assert order != nearest
    later = batches.batches(
        made, rows, 16, 3, torch.device("cpu"), n_skipped=11, buffer_tokens=buffer_tokens
    )
    assert torch.allclose(torch.cat([next(later) for _ in range(11)]), again, atol=1e-5)
    later.close()


def test_start_values_are_estimated_from_few_images(
    images: Images, clip: Clip, tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "SAMPLE_IMAGES", 5)
    made = live(images, tmp_path / "list", clip)
    assert len(batches.sample(made, np.arange(N), 0)) == 5 * 16
    assert sum(seen) == 5
