"""Embedding chunks, and one file of them, are a store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from tests.support.sae.foreign_stores import (
    CHUNKS,
    all_vectors,
    write_chunks,
)


def test_embedding_chunks_are_the_peers_own() -> None:
    expected = load_file(CHUNKS.parent / "expected.safetensors")
    store = EmbeddingStore.open(CHUNKS)
    assert torch.equal(all_vectors(store)[:, 0], expected["embeddings"])
    assert store.images["label"].astype(int).tolist() == expected["labels"].tolist()
    assert (store.info.layer, store.info.tokens) == ("projected", "cls")


@pytest.mark.parametrize("old", [False, True])
def test_chunks_of_any_sizes_follow_by_number(tmp_path: Path, old: bool) -> None:
    sizes = [4, 4, 1, 4, 2]
    form = {"_use_new_zipfile_serialization": not old}
    folder = write_chunks(tmp_path / "c", sizes, first=3, **form)
    (folder / "training_data.pt").write_bytes(b"another file")
    store = EmbeddingStore.open(folder)
    assert store.info.shard_rows == sizes
    assert all_vectors(store)[:, 0, 0].tolist() == list(range(15))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, "float16"),
        (torch.bfloat16, "float32"),
        (torch.float64, "float32"),
    ],
)
def test_one_file_of_any_float_type_is_a_store(
    tmp_path: Path, dtype: torch.dtype, kept: str
) -> None:
    x = torch.arange(12.0).view(4, 3)
    path = tmp_path / "training_data.pt"
    torch.save({"embeddings": x.to(dtype), "labels": torch.tensor([3, 1, 2, 0])}, path)
    store = EmbeddingStore.open(path)
    assert store.info.dtype == kept
    assert torch.equal(all_vectors(store)[:, 0].float(), x)


def test_damaged_chunks_are_refused(tmp_path: Path) -> None:
    folder = write_chunks(tmp_path / "c", [4, 4, 4, 4])
    os.truncate(folder / "batch_00003.pt", 300)
    with pytest.raises(UserError, match=r"batch_00003.pt is truncated or damaged"):
        EmbeddingStore.open(folder)
    torch.save({"embeddings": torch.zeros(4)}, folder / "batch_00003.pt")
    with pytest.raises(UserError, match=r"not \(images, d\) floats"):
        EmbeddingStore.open(folder)
    write_chunks(folder, [4, 4, 4, 4])
    wider = (folder / "batch_00001.pt", write_chunks(tmp_path / "w", [3], d=8) / "batch_00000.pt")
    shutil.copy(wider[1], wider[0])
    with pytest.raises(UserError, match=r"batch_00001.pt holds"):
        all_vectors(EmbeddingStore.open(folder))
    wider[0].unlink()
    with pytest.raises(UserError, match=r"batch_00001.pt is missing"):
        EmbeddingStore.open(folder)
