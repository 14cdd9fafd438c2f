"""clip-retrieval's arrays are a store; its metadata tell which image is whose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sae.core.errors import UserError
from sae.data.adopt import adopt
from sae.data.formats.layout import Choice
from sae.data.images import content_id
from sae.data.store import EmbeddingStore
from tests.support.sae.foreign_stores import all_vectors, write_images

NAMES = ["b/2.png", "a/0.png", "b/1.png", "a/4.png", "c/3.png"]
"""In no folder's order."""


def write(folder: Path, x: np.ndarray, names: list[str], sizes: tuple[int, ...] = (3, 2)) -> Path:
    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    start = 0
    for number, n in enumerate(sizes):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", x[start : start + n])
        here = pa.table({"image_path": names[start : start + n], "caption": ["a"] * n})
        pq.write_table(here, folder / "metadata" / f"metadata_{number}.parquet")
        start += n
    return folder


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 6)).astype(np.float16)


@pytest.mark.parametrize("before", ["", "/data/photos/", "photos/"])
def test_vectors_go_with_the_images_that_the_metadata_name(
    before: str, x: np.ndarray, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", NAMES)
    place = write(tmp_path / "out", x, [before + name for name in NAMES])
    choice = Choice(clip="ViT-B-32/openai")
    store = adopt(place, tmp_path / "store", choice, tmp_path / "images", "photo")
    assert store.images["path"].tolist() == NAMES
    assert store.images["label"].tolist() == [name[0] for name in NAMES]
    assert torch.equal(all_vectors(store)[:, 0], torch.from_numpy(x))
    for row, name in enumerate(NAMES):
        data = (tmp_path / "images" / name).read_bytes()
        assert store.images["image_id"][row] == content_id(data)
    assert (store.info.layer, store.info.clip) == ("projected", "ViT-B-32/openai")


def test_the_folder_itself_is_a_store(x: np.ndarray, tmp_path: Path) -> None:
    place = write(tmp_path / "out", x, NAMES)
    for folder in (place, place / "img_emb"):
        assert torch.equal(all_vectors(EmbeddingStore.open(folder))[:, 0], torch.from_numpy(x))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no array", "has no img_emb_0.npy"),
        ("no metadata", "metadata_1.parquet is missing"),
        ("other length", "is of 1 images, img_emb_1.npy of 2"),
        ("no column", "does not say whose"),
        ("image gone", "has no image 'c/3.png'"),
        ("way out", r"has no image '\.\./x.png'"),
        ("objects", "is no array of numbers"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    fault: str, said: str, x: np.ndarray, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", NAMES)
    write_images(tmp_path, ["x.png"])
    names = [*NAMES[:4], "../x.png"] if fault == "way out" else NAMES
    place = write(tmp_path / "out", x, names)
    table = place / "metadata" / "metadata_1.parquet"
    if fault == "no array":
        (place / "img_emb" / "img_emb_0.npy").unlink()
    elif fault == "no metadata":
        table.unlink()
    elif fault == "other length":
        pq.write_table(pa.table({"image_path": ["a"]}), table)
    elif fault == "no column":
        pq.write_table(pa.table({"url": ["a", "b"]}), table)
    elif fault == "image gone":
        (tmp_path / "images" / "c" / "3.png").unlink()
    elif fault == "objects":
        objects = np.array([{}], dtype=object)
        np.save(place / "img_emb" / "img_emb_0.npy", objects, allow_pickle=True)
    with pytest.raises(UserError, match=said) as caught:
        adopt(place, tmp_path / "store", None, tmp_path / "images", "photo")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_an_array_of_embeddings_is_taken_by_its_layer(x: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    store = adopt(tmp_path / "x.npy", tmp_path / "store", Choice("projected", "", "RN50/openai"))
    assert (store.info.layer, store.info.d) == ("projected", 6)
    assert torch.equal(all_vectors(store)[:, 0], torch.from_numpy(x))
    assert EmbeddingStore.open(tmp_path / "x.npy").info.layer == "latents"
