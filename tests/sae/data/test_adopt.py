"""Other labs' embeddings become a store that names them, and no copy is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sae.core.errors import UserError
from sae.data.adopt import adopt
from sae.data.formats.image_folder import in_order
from sae.data.formats.layout import Choice
from sae.data.store import EmbeddingStore
from tests.support.commands import sae
from tests.support.sae.foreign_stores import (
    CHUNKS,
    SAEV,
    all_vectors,
    image_names,
    values,
    write_chunks,
    write_images,
    write_saev,
)


def test_adopting_copies_nothing_and_both_folders_may_move_together(tmp_path: Path) -> None:
    folder = write_saev(tmp_path / "a" / "s", values(10, 2, 5, 64), [1, 2])
    adopt(f"{folder}@1", tmp_path / "a" / "store", Choice(tokens="all"))
    names = sorted(p.name for p in (tmp_path / "a" / "store").iterdir())
    assert names == ["images.parquet", "store.json"]
    assert str(tmp_path) not in (tmp_path / "a" / "store" / "store.json").read_text()
    direct = EmbeddingStore.open(f"{folder}@1,all")
    (tmp_path / "a").rename(tmp_path / "b")
    store = EmbeddingStore.open(tmp_path / "b" / "store")
    assert torch.equal(all_vectors(store), torch.from_numpy(values(10, 2, 5, 64)[:, 0]))
    assert store.info.identity == direct.info.identity
    (tmp_path / "b" / "s").rename(tmp_path / "b" / "gone")
    with pytest.raises(UserError, match="no longer at"):
        EmbeddingStore.open(tmp_path / "b" / "store")
    write_saev(tmp_path / "b" / "s", values(10, 2, 5, 64), [1, 3])
    with pytest.raises(UserError, match=r"no layer '1'|no longer holds"):
        EmbeddingStore.open(tmp_path / "b" / "store")


def test_other_embeddings_of_the_same_shape_are_not_taken_for_the_adopted_ones(
    tmp_path: Path,
) -> None:
    write_chunks(tmp_path / "c", [3, 3])
    adopt(tmp_path / "c", tmp_path / "store")
    torch.save({"embeddings": torch.randn(3, 6)}, tmp_path / "c" / "batch_00001.pt")
    with pytest.raises(UserError, match="no longer holds"):
        EmbeddingStore.open(tmp_path / "store")


def test_no_other_store_is_overwritten(tmp_path: Path, shards: Path) -> None:
    adopt(shards, tmp_path / "store")
    adopt(shards, tmp_path / "store", Choice(tokens="cls"))
    with pytest.raises(UserError, match="other embeddings are there"):
        adopt(CHUNKS, tmp_path / "store")
    with pytest.raises(UserError, match="other embeddings are there"):
        adopt(shards, shards)
    with pytest.raises(UserError, match="is an EmbeddingStore, not embeddings"):
        adopt(tmp_path / "store", tmp_path / "twice")


def test_images_come_in_the_order_of_torchvision(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    names = ["b/2.png", "b/10.png", "B/x/1.png", "B/x.png", "a/z/1.png", "a/z.JPG", "a/y/2.png"]
    folder = write_images(tmp_path / "i", [*names, "a/.hidden.png"])
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "readme.png").write_bytes(b"in no class")
    found = in_order(folder, len(names) + 1)
    peer = datasets.ImageFolder(folder)
    assert [str(folder / path) for path, _ in found] == [path for path, _ in peer.samples]
    assert [label for _, label in found] == [peer.classes[c] for _, c in peer.samples]


def test_with_its_images_a_store_knows_them_as_embed_does(tmp_path: Path) -> None:
    folder = write_saev(tmp_path / "s", values(5, 1, 5, 4), [1])
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "dog/3.png"]
    images = write_images(tmp_path / "photos", names)
    words = ("--images", images, "--domain", "photo")
    assert sae("adopt", folder, "--out", tmp_path / "store", *words) == 0
    store = EmbeddingStore.open(tmp_path / "store")
    world = tmp_path / "own"
    domain = f"photo={images}"
    assert sae("embed", "--domain", domain, "--out", world, "--workers", 0) == 0
    ours, theirs = store.images, EmbeddingStore.open(world).images
    assert ours.to_dict("list") == theirs.to_dict("list")
    assert store.image_path(3) == images / "dog" / "2.png"
    assert store.domains == ["photo"]


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write_chunks(tmp_path / "c", [4, 3])  # classes 0 0 0 1 1 1 2
    good = image_names(["a", "a", "a", "b", "b", "b", "c"])
    adopted = adopt(folder, tmp_path / "s", images=write_images(tmp_path / "good", good))
    assert adopted.images["label"].tolist() == ["a", "a", "a", "b", "b", "b", "c"]
    for number, names in enumerate((good[:-1], image_names(list("aabbbbc")))):
        images = write_images(tmp_path / str(number), names)
        with pytest.raises(UserError, match=r"6 images in|do not follow each other"):
            adopt(folder, tmp_path / "t", images=images)
    assert not (tmp_path / "t").exists()


def test_images_nobody_has_shown_are_told_apart_and_asked_for(tmp_path: Path) -> None:
    store = EmbeddingStore.open(SAEV)
    assert store.images["image_id"].nunique() == 10
    assert store.images["image_id"].str.fullmatch("[0-9a-f]{64}").all()
    again = EmbeddingStore.open(shutil.copytree(SAEV, tmp_path / "copy"))
    assert again.images["image_id"].tolist() == store.images["image_id"].tolist()
    other = EmbeddingStore.open(CHUNKS).images["image_id"]
    assert not set(other) & set(store.images["image_id"])
    with pytest.raises(UserError, match=r"sae adopt .*--images FOLDER"):
        store.image_path(0)
