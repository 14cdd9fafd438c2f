"""One pass over a store: what it depends on, how it stops and goes on, what it refuses."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from interp.evidence.reader import EvidenceReader
from interp.evidence.stream.activations import EncodedStore
from interp.evidence.stream.first_pass import ImageIndex, Survey
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.model.sae import SAE, SAEConfig
from tests.support.interp.collected import (
    D,
    embeddings,
    image_rows,
    make_sae,
    make_store,
    write_store,
)
from tests.support.interp.one_pass import SMALL, N


@pytest.mark.parametrize("n_images", [7, 100, 1000])
def test_result_does_not_depend_on_the_batch_size(n_images: int, reader, store, tmp_path) -> None:
    run = tmp_path / "run"
    collect(store, make_sae(), run, SMALL, n_images=n_images)
    for name in ("latents.parquet", "examples.parquet"):
        one, other = (folder / "collect" / name for folder in (run, reader.run_dir))
        assert one.read_bytes() == other.read_bytes()


def test_result_does_not_depend_on_the_order_of_images(reader, tmp_path) -> None:
    x, rows = embeddings(N), image_rows(N)
    order = np.random.default_rng(5).permutation(N)
    store = write_store(tmp_path / "store", x[order], [rows[i] for i in order])
    collect(store, make_sae(), tmp_path / "run", SMALL)
    columns = ["latent", "side", "kind", "rank", "stratum", "image_id", "act"]
    one, other = (
        r.examples[columns].astype({"image_id": str})
        for r in (reader, EvidenceReader(tmp_path / "run"))
    )
    pd.testing.assert_frame_equal(one, other)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("interp.evidence.stream.top_k._MIN_PENDING", 64)
    sizes = []
    for n_images in (500, 1500, 6000):  # the first warms Python's own caches up
        store = make_store(tmp_path / str(n_images), n_images)
        index = ImageIndex.of(store.images, tuple(store.domains))
        tracemalloc.start()
        survey = Survey(index, D, SMALL.n_top, SMALL.n_sample, SMALL.reservoir)
        # As many batches each time: torch holds on to some 100 bytes a call.
        for seen in EncodedStore.of(store, make_sae(), "cpu", n_images // 15).batches():
            survey.update(seen)
        del seen
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert sizes[2] < 1.15 * sizes[1]


def test_the_list_of_images_is_not_in_memory_while_images_are_encoded(store, tmp_path) -> None:
    held = []
    collect(
        store, make_sae(), tmp_path, SMALL, progress=lambda *_: held.append("images" in vars(store))
    )
    assert held
    assert not any(held)


def test_tables_of_many_parts_read_like_those_of_one(reader, store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("interp.evidence.tables.AT_ONCE", 100)
    collect(store, make_sae(), tmp_path, SMALL)
    assert len(reader.examples) > 200
    pd.testing.assert_frame_equal(
        EvidenceReader(tmp_path).examples.astype(str), reader.examples.astype(str)
    )


def test_a_finished_folder_is_left_alone(store, tmp_path) -> None:
    model, calls = make_sae(), []
    first = collect(store, model, tmp_path, SMALL, progress=lambda *seen: calls.append(seen))
    assert calls[-1][0] == calls[-1][1] > N
    before = _stamps(tmp_path)
    calls.clear()
    assert collect(store, model, tmp_path, SMALL, progress=lambda *s: calls.append(s)) == first
    assert not calls
    assert _stamps(tmp_path) == before


def test_other_settings_are_refused_unless_overwritten(store, tmp_path) -> None:
    collect(store, make_sae(), tmp_path, SMALL)
    with pytest.raises(UserError, match=r"n_top 5, not 16; add --overwrite"):
        collect(store, make_sae(), tmp_path)
    other = make_sae()
    with torch.no_grad():
        other.b_enc[0] += 0.5
    with pytest.raises(UserError, match="sae_identity"):
        collect(store, other, tmp_path, SMALL)
    info = collect(store, make_sae(), tmp_path, CollectConfig(n_top=2), overwrite=True)
    assert info.n_top == EvidenceReader(tmp_path).info.n_top == 2


def test_a_stopped_collect_is_unfinished_and_goes_on(store, tmp_path, monkeypatch) -> None:
    collect(store, make_sae(), tmp_path, SMALL)

    def stop(*_: object) -> Iterator[None]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("interp.evidence.collect.write_examples", stop)
        with pytest.raises(KeyboardInterrupt):
            collect(store, make_sae(), tmp_path, SMALL, overwrite=True)
    with pytest.raises(UserError, match="interp collect"):
        EvidenceReader(tmp_path)
    collect(store, make_sae(), tmp_path, SMALL)
    assert EvidenceReader(tmp_path).info.n_live > 0


def test_a_store_that_moved_is_found_again(store, tmp_path) -> None:
    shutil.copytree(store.path, tmp_path / "old")
    collect(EmbeddingStore.open(tmp_path / "old"), make_sae(), tmp_path / "run", SMALL)
    (tmp_path / "old").rename(tmp_path / "new")
    info = collect(EmbeddingStore.open(tmp_path / "new"), make_sae(), tmp_path / "run", SMALL)
    assert info.store == "../new"
    assert json.loads((tmp_path / "run/collect/collect.json").read_text())["store"] == "../new"
    assert EvidenceReader(tmp_path / "run").store.info.n_images == N


def test_an_embedding_that_is_not_finite_is_named(tmp_path) -> None:
    x = embeddings(60)
    x[41, 0, 3] = float("nan")
    store = write_store(tmp_path / "store", x, image_rows(60))
    with pytest.raises(UserError, match=r"row 41 \(.*41\.png\) is not finite"):
        collect(store, make_sae(), tmp_path / "run", SMALL)


def test_a_store_of_another_width_is_refused(tmp_path) -> None:
    store = make_store(tmp_path / "store", 30)
    other = make_sae()
    other.config = type(other.config)(d=D + 1, n_latents=D, k=6)
    with pytest.raises(UserError, match="25"):
        collect(store, other, tmp_path / "run", SMALL)


def test_an_sae_that_never_fires_is_all_dead(tmp_path) -> None:
    store = write_store(tmp_path / "store", torch.zeros(30, 1, D), image_rows(30))
    info = collect(store, make_sae(), tmp_path / "run", SMALL)
    assert (info.n_dead, info.n_examples) == (D, 0)
    assert EvidenceReader(tmp_path / "run").of(0).examples == ()


@pytest.mark.parametrize(
    "bad", [{"n_top": 0}, {"n_silent": 3000}, {"dense_above": 1.5}, {"n_hard": -1}]
)
def test_settings_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        CollectConfig(**bad)


def _stamps(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run / "collect").iterdir()}


def test_what_an_sae_does_to_its_input_is_part_of_its_identity() -> None:
    plain = SAE(SAEConfig(d=4, n_latents=8, k=2))
    others = [
        SAE(replace(plain.config, **c)) for c in ({"input_norm": "layer_norm"}, {"soft_cap": 30.0})
    ]
    assert len({sae_identity(model) for model in (plain, *others)}) == 3
    assert sae_identity(plain) == sae_identity(SAE(replace(plain.config, layer="3")))
