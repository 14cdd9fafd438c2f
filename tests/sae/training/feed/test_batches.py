from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.data.store_format import shard_path
from sae.model.init import start_values
from sae.training.feed import batches
from sae.training.feed.prefetch import prefetch
from tests.support.paths import BENCHMARKS
from tests.support.sae.stores import write_store

CPU = torch.device("cpu")
MODES = {"resident": 1 << 30, "streamed": 0}


@pytest.fixture(params=list(MODES))
def in_memory_bytes(request: pytest.FixtureRequest) -> int:
    return MODES[request.param]


@pytest.fixture
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_TOKENS", 10)
    monkeypatch.setattr(batches, "BUFFER_TOKENS", 35)


@pytest.fixture
def store(tmp_path: Path, _small_windows: None) -> EmbeddingStore:
    """60 images of 2 tokens in 3 shards; a token's value is its number."""
    return write_store(tmp_path / "s", torch.arange(120.0).view(60, 2, 1), dtype="float16")


ROWS = np.flatnonzero(np.arange(60) % 5 != 2)  # 48 images, 96 tokens
TOKENS = sorted(2 * row + place for row in ROWS.tolist() for place in range(2))


def numbers(stream: Iterator[Tensor], n_batches: int) -> list[list[int]]:
    return [batch.flatten().int().tolist() for batch in islice(stream, n_batches)]


def flat(batches: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("ahead")]


# The batches


def test_the_masks_of_cls_tokens_go_with_the_batches(store: EmbeddingStore) -> None:
    store.info = dataclasses.replace(store.info, tokens="all", grid=[1, 1])
    for rank in range(2):
        order = (store, ROWS, 15, 3, CPU)
        stream = batches.batches(*order, n_skipped=2, part=(rank, 2))
        masks = batches.cls_masks(*order, n_skipped=2, part=(rank, 2))
        for x, is_cls in islice(zip(stream, masks, strict=False), 20):
            assert is_cls.tolist() == [number % 2 == 0 for number in x.flatten().int().tolist()]
    store.info = dataclasses.replace(store.info, grid=[1, 2])  # of a CLIP without CLS
    with pytest.raises(UserError, match="cls_weight needs a store of all tokens, CLS among them"):
        batches.cls_masks(store, ROWS, 15, 3, CPU)


def test_every_token_comes_once_a_pass_in_a_new_order(
    store: EmbeddingStore, in_memory_bytes: int
) -> None:
    stream = batches.batches(store, ROWS, 32, 0, CPU, in_memory_bytes)
    first, second = (flat(numbers(stream, 3)) for _ in range(2))
    assert sorted(first) == sorted(second) == TOKENS
    assert first != second
    again = batches.batches(store, ROWS, 32, 0, CPU, in_memory_bytes)
    assert flat(numbers(again, 3)) == first


@pytest.mark.parametrize("batch_size", [1, 7, 32, 35, 96, 150, 500])
def test_a_streamed_store_gives_the_batches_of_a_resident_one(
    store: EmbeddingStore, batch_size: int
) -> None:
    n_batches = 3 * 96 // batch_size + 3
    resident, streamed = (
        list(islice(batches.batches(store, ROWS, batch_size, 5, CPU, n_bytes), n_batches))
        for n_bytes in MODES.values()
    )
    for ours, theirs in zip(resident, streamed, strict=True):
        assert ours.shape == (batch_size, 1)
        assert ours.dtype == torch.float16
        assert torch.equal(ours, theirs)


def test_batches_are_full_also_when_there_are_fewer_tokens(
    tmp_path: Path, in_memory_bytes: int
) -> None:
    store = write_store(tmp_path / "s", torch.arange(5.0).view(5, 1, 1))
    stream = batches.batches(store, np.arange(5), 12, 0, CPU, in_memory_bytes)
    tokens = flat(numbers(stream, 5))
    assert len(tokens) == 60
    assert set(Counter(tokens).values()) == {12}


@pytest.mark.parametrize("n_skipped", [0, 1, 2, 3, 10, 11, 47])
def test_a_stream_that_skips_goes_on_like_an_unbroken_one(
    store: EmbeddingStore, in_memory_bytes: int, n_skipped: int
) -> None:
    unbroken = batches.batches(store, ROWS, 20, 1, CPU, in_memory_bytes)
    skipping = batches.batches(store, ROWS, 20, 1, CPU, in_memory_bytes, n_skipped=n_skipped)
    assert numbers(skipping, 20) == numbers(unbroken, n_skipped + 20)[n_skipped:]


def test_what_is_skipped_is_not_read(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _recorded(store, monkeypatch)
    stream = batches.batches(store, ROWS, 20, 0, CPU, 0, n_skipped=1_000_000_000)
    assert len(numbers(stream, 1)[0]) == 20
    stream.close()
    assert sum(len(out) for out in read) <= 2 * (35 + 20)


@pytest.mark.parametrize("n_ranks", [1, 2])
@pytest.mark.parametrize("batch_size", [4, 20, 33, 50])
def test_what_is_asked_for_is_read_once_though_batches_lie_across_windows(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, batch_size: int, n_ranks: int
) -> None:
    asked: list[int] = []
    read = store.read_tokens

    def recorded(tokens: NDArray[np.int64], out: Tensor) -> None:
        asked.extend(tokens.tolist())
        read(tokens, out)

    monkeypatch.setattr(store, "read_tokens", recorded)
    n = 4 * 96 // batch_size
    used = []
    for rank in range(n_ranks):
        part = (rank, n_ranks)
        stream = batches.batches(store, ROWS, batch_size, 0, CPU, 0, part=part, n_in_all=n)
        found = numbers(stream, n + 1)
        assert len(found) == n
        used += flat(found)
    assert Counter(asked) == Counter(used)


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_the_ranks_parts_make_the_whole_batch(
    store: EmbeddingStore, in_memory_bytes: int, n_ranks: int
) -> None:
    whole = list(islice(batches.batches(store, ROWS, 32, 0, CPU, in_memory_bytes), 9))
    streams = [
        batches.batches(store, ROWS, 32, 0, CPU, in_memory_bytes, part=(rank, n_ranks))
        for rank in range(n_ranks)
    ]
    for batch, *parts in zip(whole, *streams, strict=False):
        expected = torch.tensor_split(batch, n_ranks)
        assert all(torch.equal(a, b) for a, b in zip(parts, expected, strict=True))


def test_a_rank_that_streams_reads_its_own_rows_only(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _recorded(store, monkeypatch)
    stream = batches.batches(store, ROWS, 32, 0, CPU, 0, part=(1, 4))
    numbers(stream, 12)
    stream.close()
    assert sum(len(out) for out in read) <= (12 * 32 + 3 * 64) / 4


def test_a_batch_keeps_its_values_while_the_stream_goes_on(
    store: EmbeddingStore, in_memory_bytes: int
) -> None:
    stream = batches.batches(store, ROWS, 20, 0, CPU, in_memory_bytes)
    kept, values = [], []
    for batch in islice(stream, 30):
        kept.append(batch)
        values.append(batch.clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, values, strict=True))


def test_a_batch_may_be_changed_in_place(store: EmbeddingStore, in_memory_bytes: int) -> None:
    stream = batches.batches(store, ROWS, 32, 0, CPU, in_memory_bytes)
    for batch in islice(stream, 3):
        batch.fill_(-1)
    assert sorted(flat(numbers(stream, 3))) == TOKENS


def test_two_windows_are_all_that_is_held_of_a_larger_store(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _recorded(store, monkeypatch)
    stream = batches.batches(store, ROWS, 4, 0, CPU, 0)
    numbers(stream, 96)
    held = {out.untyped_storage().data_ptr(): out.untyped_storage().nbytes() for out in read}
    assert len(read) > 9  # windows of four passes
    assert len(held) == 2
    assert (
        max(held.values()) == 40 * 2
    )  # 9 batches of 4 float16, 35 tokens rounded up, and one more


@pytest.mark.parametrize(("n_free", "n_held"), [(2 * 96 * 2, 96), (2 * 96 * 2 - 2, 40)])
def test_the_default_holds_what_fits_into_half_of_the_free_memory(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, n_free: int, n_held: int
) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_AVPHYS_PAGES": n_free, "SC_PAGE_SIZE": 1}.get)
    read = _recorded(store, monkeypatch)
    stream = batches.batches(store, ROWS, 4, 0, CPU)
    next(stream)
    stream.close()
    assert read[0].untyped_storage().nbytes() == n_held * 2


def test_a_shard_that_cannot_be_read_is_an_error_here_and_leaves_no_thread(
    store: EmbeddingStore,
) -> None:
    shard_path(store.path, 2).write_bytes(b"torn")
    stream = batches.batches(store, ROWS, 8, 0, CPU, 0)
    with pytest.raises(UserError, match=r"00002\.safetensors is damaged"):
        numbers(stream, 100)
    assert readers() == []


def test_what_was_read_before_the_damage_still_comes(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store.read_tokens
    calls: list[int] = []

    def third_fails(tokens: NDArray[np.int64], out: Tensor) -> None:
        calls.append(len(tokens))
        if len(calls) == 3:
            raise UserError("the disk is gone")
        read(tokens, out)

    monkeypatch.setattr(store, "read_tokens", third_fails)
    stream = batches.batches(store, ROWS, 5, 0, CPU, 0)
    assert len(numbers(stream, 14)) == 14  # two windows of 35 tokens
    with pytest.raises(UserError, match="the disk is gone"):
        next(stream)
    assert readers() == []


def test_a_stream_that_is_closed_leaves_no_thread(store: EmbeddingStore) -> None:
    stream = batches.batches(store, ROWS, 8, 0, CPU, 0)
    next(stream)
    assert len(readers()) == 1
    stream.close()
    assert readers() == []


def test_batches_come_on_a_device_of_another_kind(
    store: EmbeddingStore, in_memory_bytes: int
) -> None:
    stream = batches.batches(store, ROWS, 32, 0, torch.device("meta"), in_memory_bytes)
    assert {(x.device.type, x.shape) for x in islice(stream, 9)} == {("meta", (32, 1))}


@pytest.mark.cuda
@pytest.mark.parametrize("batch_size", [7, 32, 150])
def test_a_gpu_gets_the_batches_of_the_cpu(
    store: EmbeddingStore, in_memory_bytes: int, batch_size: int
) -> None:
    ours, theirs = (
        batches.batches(store, ROWS, batch_size, 0, torch.device(name), in_memory_bytes)
        for name in ("cuda", "cpu")
    )
    found = []
    busy = torch.eye(2000, device="cuda")
    for batch in islice(ours, 60):
        assert batch.device.type == "cuda"
        for _ in range(5):  # the GPU falls behind: an upload that overtakes a batch would show
            busy = busy @ busy
        found.append(batch)
    for batch, expected in zip(found, theirs, strict=False):
        assert torch.equal(batch.cpu(), expected)


# The thread


def test_items_come_in_order_and_only_one_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    for taken, number in enumerate(prefetch(items())):
        assert number == taken
        assert len(made) <= taken + 2
    assert made == list(range(10))


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2

    for number in prefetch(items()):
        if number == 1:
            assert begun.wait(10)
    assert readers() == []


# What training begins with


def test_the_sample_holds_enough_tokens_or_all(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", torch.arange(40.0).view(20, 2, 1))
    rows = np.arange(3, 20)
    assert len(batches.sample(store, rows, 0, n_tokens=7)) == 8
    assert sorted(batches.sample(store, rows, 0).flatten().tolist()) == list(range(6, 40))
    some = batches.sample(store, rows, 1, n_tokens=8)
    assert not torch.equal(some, batches.sample(store, rows, 2, n_tokens=8))


def test_the_statistics_are_of_65536_tokens_unless_told() -> None:
    assert batches.SAMPLE_TOKENS == 65_536


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_median_is_that_of_plain_weiszfeld_steps_in_float64(dtype: torch.dtype) -> None:
    offset = 20 if dtype == torch.float16 else 1e4  # the latter leaves float32 three digits
    generator = torch.Generator().manual_seed(0)
    x = (offset + 0.1 * torch.randn(500, 6, generator=generator).exp()).to(dtype)
    values = start_values(x)
    z = (x.double() - x.double().mean(0)) / values.scale
    median = torch.zeros(6, dtype=torch.float64)
    for _ in range(200):
        weights = 1 / (z - median).norm(dim=1, keepdim=True)
        median = (weights * z).sum(0) / weights.sum()
    assert median.norm() > 0.1
    torch.testing.assert_close(values.median.double(), median, atol=1e-4, rtol=0)


# The benchmark


def test_the_benchmark_measures_all_streams(tmp_path: Path) -> None:
    script = BENCHMARKS / "feed_speed.py"
    sizes = {"--n-rows": 3000, "--d": 8, "--batch": 100, "--rounds": 1, "--turn-rows": 1000}
    out = tmp_path / "feed.json"
    given = [str(word) for pair in sizes.items() for word in pair]
    subprocess.run([sys.executable, script, *given, "--json", out], check=True)
    found = json.loads(out.read_text())
    for name in ("ours, resident", "ours, streamed", "rows", "TensorDataset"):
        assert found[f"{name}: M rows/s"] > 0
        assert found[f"{name}: M rows/CPU s"] > 0
    assert found["n_rows"] == 3000


def _recorded(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the store is asked to fill from now on."""
    read = type(store).read_tokens
    outs: list[Tensor] = []

    def note(tokens: NDArray[np.int64], out: Tensor) -> None:
        outs.append(out)
        read(store, tokens, out)

    monkeypatch.setattr(store, "read_tokens", note)
    return outs
