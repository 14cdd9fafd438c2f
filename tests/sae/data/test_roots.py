import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sae.core.errors import Notice, UserError
from sae.core.files import write_json
from sae.data.roots import confirm, remember
from sae.data.store import EmbeddingStore
from tests.support.sae.stores import write_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingStore:
    """Three photos of ../photo; which folders were named is kept in a place of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for folder in ("photo", "private", "far"):
        (tmp_path / "work" / folder).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "work" / folder / f"{i}.png").write_bytes(b"image")
    return write_store(tmp_path / "work" / "store", torch.zeros(3, 1, 4))


def with_paths(store: EmbeddingStore, *paths: str) -> EmbeddingStore:
    images = pd.read_parquet(store.path / "images.parquet")
    images.loc[: len(paths) - 1, "path"] = list(paths)
    images.to_parquet(store.path / "images.parquet")
    return EmbeddingStore.open(store.path)


def with_root(store: EmbeddingStore, root: str) -> EmbeddingStore:
    write_json(store.path / "store.json", replace(store.info, roots={"photo": root}))
    return EmbeddingStore.open(store.path)


@pytest.mark.parametrize(
    "path", ["../private/0.png", "a/../../private/0.png", "/etc/passwd", "..", "", "x\0.png"]
)
def test_a_path_that_leaves_its_root_is_refused_by_name(store: EmbeddingStore, path: str) -> None:
    with pytest.raises(UserError, match=r"images.parquet: the path .* leaves its domain"):
        with_paths(store, path).image_path(0)
    with pytest.raises(UserError, match=r"images.parquet: the path .* leaves its domain"):
        with_paths(store, path).take_images(np.array([0]))


def test_dots_within_a_name_are_no_way_out(store: EmbeddingStore) -> None:
    assert with_paths(store, "a..b.png").image_path(0).name == "a..b.png"
    assert with_paths(store, "a: b.png").image_path(0).name == "a: b.png"


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_root_is_refused_until_the_user_allows_it(
    store: EmbeddingStore, link: str
) -> None:
    photo, private = store.path.parent / "photo", store.path.parent / "private"
    (photo / "0.png").unlink()
    (photo / "0.png").symlink_to(private / "0.png")
    (photo / "deep").symlink_to(private)
    (photo / "same.png").symlink_to("1.png")
    path = "0.png" if link == "file" else "deep/1.png"
    opened = with_paths(store, path, "same.png")
    assert opened.image_path(1) == photo.resolve() / "same.png"
    with pytest.raises(UserError, match=r"a link out of .*--follow-links"):
        opened.image_path(0)
    confirm(store.path, [str(photo)], follow_links=True)
    assert EmbeddingStore.open(store.path).image_path(0) == photo.resolve() / path


def test_roots_that_were_changed_after_they_were_named_are_refused(store: EmbeddingStore) -> None:
    remember(store.info)
    assert store.image_path(0).parent.name == "photo"
    for root in ("../private", str(store.path.parent / "private"), "../../../.."):
        with pytest.raises(UserError, match=r"nobody has named these .*--images photo=DIR"):
            with_root(store, root).image_path(0)


def test_a_store_of_which_nothing_is_known_reads_what_lies_beside_it_alone(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.image_path(0).parent.name == "photo"
    (tmp_path / "outside").mkdir()
    with pytest.raises(UserError, match="nobody has named"):
        with_root(store, "../../outside").image_path(0)
    (store.path.parent / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="nobody has named"):
        with_root(store, "../link").image_path(0)
    monkeypatch.setenv("HOME", str(store.path.parent))  # a store in the user's home
    with pytest.raises(UserError, match="nobody has named"):
        with_root(store, "../private").image_path(0)


def test_images_confirm_where_the_images_are(store: EmbeddingStore, tmp_path: Path) -> None:
    remember(store.info)
    far = tmp_path / "far"
    (store.path.parent / "photo").rename(far)
    with pytest.raises(UserError, match=r"no longer at .*--images photo=DIR"):
        store.image_path(0)
    confirm(store.path, [f"photo={far}"])
    opened = EmbeddingStore.open(store.path)
    assert opened.image_path(2) == far.resolve() / "2.png"
    assert opened.info == replace(store.info, roots={"photo": "../../far"})
    assert json.loads((store.path / "store.json").read_text())["roots"] == {"photo": "../../far"}


def test_images_that_are_not_those_of_the_store_confirm_nothing(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no image of the domain 'photo' .* such as 0.png"):
        confirm(store.path, [str(tmp_path / "empty")])
    with pytest.raises(UserError, match=r"domains of .* are photo; --images photo=DIR"):
        confirm(store.path, [f"sketch={tmp_path}"])


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="no /proc")
def test_where_nothing_can_be_kept_a_line_says_so(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/self")
    with pytest.warns(Notice, match="set XDG_STATE_HOME to a folder that can be written"):
        remember(store.info)
