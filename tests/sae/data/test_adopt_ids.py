"""Arrays of vectors with a table that says whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sae.core.errors import UserError
from sae.data.adopt import adopt
from sae.data.formats.layout import Choice
from sae.data.images import content_id
from sae.data.store import EmbeddingStore
from tests.support.commands import sae
from tests.support.sae.foreign_stores import all_vectors
from tests.support.sae.small_clip import write_images

PROJECTED = Choice(layer="projected")
N = 6


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(N, 8)).astype("float32"))
    return tmp_path / "x.npy"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """In the order of the vectors, which is no folder's."""
    paths = write_images(tmp_path / "photos", N)
    return [paths[n] for n in (4, 1, 0, 5, 3, 2)]


def write(file: Path, **columns: list[str]) -> Path:
    frame = pd.DataFrame(columns)
    frame.to_parquet(file) if file.suffix == ".parquet" else frame.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_images_are_found_by_the_tables_paths(
    suffix: str, array: Path, images: list[Path], tmp_path: Path
):
    root = tmp_path / "photos"
    names = [path.relative_to(root).as_posix() for path in images]
    table = write(tmp_path / f"ids{suffix}", path=names, label=list("abcabc"))
    words = ("--images", root, "--ids", table, "--layer", "projected", "--out", tmp_path / "store")
    assert sae("adopt", array, *words) == 0
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.images["image_id"].tolist() == [content_id(p.read_bytes()) for p in images]
    assert store.images["label"].tolist() == list("abcabc")
    assert [store.image_path(row).resolve() for row in range(N)] == images
    assert torch.equal(all_vectors(store)[:, 0], torch.from_numpy(np.load(array)))


def test_without_labels_in_the_table_folders_are_the_classes(
    array: Path, images: list[Path], tmp_path: Path
):
    table = write(tmp_path / "ids.csv", image_path=[str(path) for path in images])
    store = adopt(array, tmp_path / "store", PROJECTED, tmp_path / "photos", ids=table)
    assert store.images["label"].tolist() == [path.parent.name for path in images]


def test_ids_alone_tell_vectors_apart_and_hashes_are_the_images_own(array: Path, tmp_path: Path):
    hashes = [content_id(b"%d" % n) for n in range(N)]
    store = adopt(array, tmp_path / "a", PROJECTED, ids=write(tmp_path / "a.csv", id=hashes))
    assert store.images["image_id"].tolist() == hashes
    names = ["NA", "1e5", "007", "x.png", "null", "b"]
    store = adopt(array, tmp_path / "b", PROJECTED, ids=write(tmp_path / "b.csv", only=names))
    assert store.images["path"].tolist() == names
    assert store.images["image_id"].nunique() == N
    assert EmbeddingStore.open(tmp_path / "b").info.identity == store.info.identity
    other = adopt(array, tmp_path / "c", PROJECTED, ids=write(tmp_path / "c.csv", id=names[::-1]))
    assert other.info.identity != store.info.identity


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": ["a", "b"]}, "has 2 ids, but there are 6 vectors"),
        ({"id": list("abcdea")}, "'a' stands in row 1 and 6"),
        ({"id": ["a", "", "c", "d", "e", "f"]}, "row 2: id is empty"),
        ({"x": list("abcdef"), "y": list("abcdef")}, "has no column of ids"),
        ({"id": ["../a", "b", "c", "d", "e", "f"]}, "leaves its domain's folder"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(
    columns: dict[str, list[str]],
    told: str,
    array: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    table = write(tmp_path / "ids.csv", **columns)
    words = ("--ids", table, "--layer", "projected", "--out", tmp_path / "store")
    assert sae("adopt", array, *words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (tmp_path / "store").exists()


def test_a_table_that_is_none_and_embeddings_that_need_none_are_refused(
    array: Path, tmp_path: Path
):
    (tmp_path / "ids.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read as a table of ids"):
        adopt(array, tmp_path / "store", PROJECTED, ids=tmp_path / "ids.parquet")
    with pytest.raises(UserError, match="does not exist"):
        adopt(array, tmp_path / "store", PROJECTED, ids=tmp_path / "gone.csv")
    (tmp_path / "retrieved").mkdir()
    array.rename(tmp_path / "retrieved" / "img_emb_0.npy")
    with pytest.raises(UserError, match="say themselves whose they are"):
        adopt(tmp_path / "retrieved", tmp_path / "store", ids=tmp_path / "ids.parquet")
