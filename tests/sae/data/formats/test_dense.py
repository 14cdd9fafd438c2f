"""Dense latents with their captions are a store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sae.core.errors import USAGE, UserError
from sae.data.store import EmbeddingStore
from tests.support.commands import interp
from tests.support.sae.foreign_stores import (
    DATA,
    LATENTS,
    all_vectors,
)


def test_dense_latents_with_their_captions_are_a_store() -> None:
    expected = load_file(LATENTS.parent / "expected.safetensors")
    for place in (LATENTS, LATENTS / "latents.npy"):
        store = EmbeddingStore.open(place)
        assert torch.equal(all_vectors(store)[:, 0], expected["latents"])
        assert store.info.layer == "latents"
    assert store.images["label"][0] == "tench"


def test_hostile_and_damaged_latents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("collect", DATA / "evil" / "npy"), ("collect", DATA / "evil/npy/latents.npy")):
        assert interp(*words, "--run", tmp_path / "run") == USAGE
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "latents.npy"
    for array in (
        np.zeros(3),
        np.zeros((0, 4), "f4"),
        np.zeros((3, 4), "i4"),
        np.zeros((3, 4), "c8"),
    ):
        np.save(path, array)
        with pytest.raises(UserError, match="latents are"):
            EmbeddingStore.open(path)
    np.save(path, np.zeros((3, 4), "f4"))
    whole = path.read_bytes()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999), }"
    for data in (
        *(whole[:-4], whole[:60], whole[:7], b"\x93NUMPY\x01\x00", b"PK\x03\x04rest"),
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header,
        b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + b"{" * 20_000,
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match="no array of numbers"):
            EmbeddingStore.open(path)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"0": "x"}, "1 captions for the 3"),
        ({"0": "x", "1": "y", "3": "z"}, 'no caption "2"'),
        (["x", "y", "z"], "JSON object"),
    ],
)
def test_captions_of_other_images_are_refused(
    tmp_path: Path, captions: object, message: str
) -> None:
    np.save(tmp_path / "latents.npy", np.ones((3, 4), "f4"))
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    with pytest.raises(UserError, match=message):
        EmbeddingStore.open(tmp_path)


def test_latents_in_any_order_of_memory_and_type_are_read(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(4, 3)
    for array in (np.asfortranarray(x, "f4"), x, x.astype("f2"), x.astype(">f4")):
        np.save(tmp_path / "latents.npy", array)
        store = EmbeddingStore.open(tmp_path)
        assert torch.equal(all_vectors(store)[:, 0].float(), torch.from_numpy(x).float())
