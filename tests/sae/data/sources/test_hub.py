"""Data sets of Hugging Face's `datasets`: fetched once, and then read as a folder of tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sae.clip.model import load_clip
from sae.core.errors import Notice, UserError
from sae.data.images import content_id, read_known
from sae.data.sources import hub
from sae.data.sources.folders import ImageFile, find_images, find_roots, parse_domains
from sae.data.store import EmbeddingStore
from tests.support.commands import sae
from tests.support.sae.embedded import Images, run
from tests.support.sae.small_clip import write_images
from tests.support.sae.sources import write_table
from tests.support.servers.fake_hub import FakeHub

needs_datasets = pytest.mark.skipif(not find_spec("datasets"), reason="datasets is not installed")
N = 13


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders by class."""
    root = tmp_path_factory.mktemp("images") / "photo"
    write_images(root, N)
    return root


def labelled(folder: Path) -> list[tuple[str, bytes]]:
    return [(file.parent.name, file.read_bytes()) for file in sorted(folder.rglob("*.png"))]


def as_tables(folder: Path, into: Path) -> str:
    images = labelled(folder)
    write_table(into / "set" / "train-00000-of-00002.parquet", images[::2])
    write_table(into / "set" / "train-00001-of-00002.parquet", images[1::2])
    return f"hf:{into / 'set'}:train"


def as_folder(folder: Path, into: Path) -> str:
    shutil.copytree(folder, into / "set" / "train")
    return f"hf:{into / 'set'}"


def listed(word: str) -> list[ImageFile]:
    return find_images(parse_domains([f"photo={word}"]))


def by_id(word: str, out: Path) -> dict[str, tuple[str, bytes]]:
    """Class and embedding of each image."""
    places = parse_domains([f"photo={word}"])
    clip = load_clip("tiny", "cpu", texts=False)
    # One at a time: the sums of a batch may round otherwise in another order.
    run(Images(find_roots(places), find_images(places)), out, clip, batch_size=1)
    store = EmbeddingStore.open(out)
    x = torch.cat([batch.x for batch in store.batches()])
    assert all(read_known(store.image_path(row), name) for row, name in enumerate(ids(store)))
    labels = store.images["label"].tolist()
    return {
        name: (label, x[row].numpy().tobytes())
        for row, (name, label) in enumerate(zip(ids(store), labels, strict=True))
    }


def ids(store: EmbeddingStore) -> list[str]:
    return [str(name) for name in store.images["image_id"]]


@needs_datasets
@pytest.mark.parametrize("write", [as_tables, as_folder])
def test_a_data_set_gives_the_store_of_the_folder(write, drawn: Path, tmp_path: Path):
    assert by_id(write(drawn, tmp_path), tmp_path / "a") == by_id(str(drawn), tmp_path / "b")


@needs_datasets
def test_what_was_fetched_needs_neither_the_library_nor_the_data_set(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    word = as_tables(drawn, tmp_path)
    before = listed(word)
    for table in (tmp_path / "set").iterdir():
        table.write_bytes(b"gone")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert listed(word) == before
    assert {content_id(hub_bytes(file)) for file in before} == {
        content_id(data) for _, data in labelled(drawn)
    }


def hub_bytes(file: ImageFile) -> bytes:
    return bytes(pq.read_table(file.path.parent)["image"].to_pylist()[int(file.path.name)])


@needs_datasets
def test_a_stopped_fetch_goes_on_behind_the_tables_that_are_there(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "TABLE_ROWS", 3)
    word, write, n_written = as_tables(drawn, tmp_path), hub._write, 0

    def stop(*given: object) -> None:
        nonlocal n_written
        if n_written == 2:
            raise KeyboardInterrupt
        n_written += 1
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(hub, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        listed(word)
    monkeypatch.setattr(hub, "_write", write)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.parquet")}
    assert len(kept) == 2
    found = [content_id(hub_bytes(file)) for file in listed(word)]
    assert sorted(found) == sorted(content_id(data) for _, data in labelled(drawn))
    assert all(file.stat().st_mtime_ns == changed for file, changed in kept.items())


@needs_datasets
def test_of_several_splits_one_must_be_named(drawn: Path, tmp_path: Path):
    images = labelled(drawn)
    write_table(tmp_path / "set" / "train.parquet", images[::2])
    write_table(tmp_path / "set" / "test.parquet", images[1::2])
    with pytest.raises(UserError, match=r"has the splits train, test; write hf:.*set:train"):
        listed(f"hf:{tmp_path / 'set'}")
    assert len(listed(f"hf:{tmp_path / 'set'}:test")) == len(images) // 2
    with pytest.raises(UserError, match="cannot be read"):
        listed(f"hf:{tmp_path / 'set'}:valid")


@needs_datasets
def test_a_data_set_without_images_or_that_is_not_there_is_one_line(tmp_path: Path):
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "set" / "train.parquet")
    with pytest.raises(UserError, match="has no column of images; its columns: text"):
        listed(f"hf:{tmp_path / 'set'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        listed(f"hf:{tmp_path / 'empty'}")


def test_without_the_library_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert sae("embed", "photo=hf:you/cats:train", "--out", tmp_path / "store") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "hf:you/cats:train is read with the library datasets" in line
    assert "pip install 'sae-interp[hf]'" in line


@pytest.mark.parametrize("word", ["hf:", "hf::train", "hf:you/cats:tr ain"])
def test_a_word_that_names_no_data_set_is_refused(word: str):
    with pytest.raises(UserError, match="names no data set"):
        hub.place_of(word)


def test_other_folders_are_left_alone(drawn: Path):
    hub.fetch_missing(drawn)
    assert hub.place_of("~/images") == Path.home() / "images"


@pytest.mark.slow
@needs_datasets
def test_a_data_set_of_a_hub_is_fetched_once_over_http(drawn: Path, tmp_path: Path):
    table = write_table(tmp_path / "table.parquet", labelled(drawn))
    files = {"data/train-00000-of-00001.parquet": table.read_bytes(), "README.md": b"# cats\n"}
    command = [sys.executable, "-m", "sae", "embed", "photo=hf:you/cats:train", "--workers", "0"]
    with FakeHub() as server:
        server.add("datasets/you/cats", files)
        there = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
        for out in ("a", "b"):
            done = subprocess.run(
                [*command, "--out", str(tmp_path / out)],
                env={**os.environ, **there},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout[:11]) == (0, "embedded 13"), done.stderr
            n_asked, server.asked[:] = len(server.asked), []
            assert (n_asked > 0) == (out == "a")
    store = EmbeddingStore.open(tmp_path / "a")
    assert {content_id(data) for _, data in labelled(drawn)} == set(ids(store))


def test_notices_do_not_speak_of_files_of_ours(
    drawn: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    place = hub.place_of("hf:you/cats:train")
    write_table(place / "00000.parquet", labelled(drawn))
    (place / hub.MARKER).write_text("{}")
    assert len(listed("hf:you/cats:train")) == len(labelled(drawn))
    assert not [
        w for w in recwarn if issubclass(w.category, Notice) and "left out" in str(w.message)
    ]
