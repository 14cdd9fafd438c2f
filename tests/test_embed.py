import csv
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from small_clip import small_clip, write_images

from sae import embed as room
from sae import loading
from sae.clip import Clip, load_clip
from sae.embed import embed, plan_store
from sae.errors import UserError
from sae.images import BadImage, ImageFile, find_images, read_image
from sae.store import EmbeddingStore, Source, StoreInfo

N_IMAGES = 23


class Images(NamedTuple):
    roots: dict[str, Path]
    files: list[ImageFile]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    torch.set_num_threads(1)  # children are forked, and must not wait for threads left behind
    return load_clip(small_clip(tmp_path_factory.mktemp("clips") / "small"), "cpu")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return found(
        tmp_path, write_images(tmp_path / "sketch", 12), write_images(tmp_path / "photo", 11, 1)
    )


def found(folder: Path, *_: object) -> Images:
    roots = {"sketch": folder / "sketch", "photo": folder / "photo"}
    return Images(roots, find_images(roots))


def run(
    images: Images, out: Path, clip: Clip, layer: str = "1", tokens: str = "all", **options: object
) -> StoreInfo:
    settings = {"workers": 0, "batch_size": 3, "shard_images": 5, **options}
    source = Source(clip.name, layer, tokens)  # type: ignore[arg-type]
    return embed(images.files, images.roots, out, clip, source, **settings)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def skipped(store: Path) -> list[list[str]]:
    with (store / "skipped.csv").open(newline="") as file:
        return list(csv.reader(file))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []

    def counted(path: Path) -> tuple[str, Image.Image]:
        reads.append(path)
        return read_image(path)

    monkeypatch.setattr(loading, "read_image", counted)
    return reads


@pytest.mark.parametrize(
    ("layer", "tokens", "dtype"),
    [("projected", "cls", "float32"), ("-1", "patch", "float16"), ("0", "all", "float32")],
)
def test_a_store_holds_what_the_model_gives_for_each_image(
    images: Images, clip: Clip, tmp_path: Path, layer: str, tokens: str, dtype: str
) -> None:
    info = run(images, tmp_path / "store", clip, layer, tokens, dtype=dtype)
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.info == info
    x = store.read(np.arange(N_IMAGES))
    assert x.dtype == getattr(torch, dtype)
    for row, file in enumerate(images.files):
        image_id, image = read_image(file.path)
        known = clip.embed_images(clip.preprocess(image)[None], layer, tokens)[0]
        assert torch.allclose(
            x[row].float(), known, atol=1e-5, rtol=1e-3 if dtype == "float16" else 1e-5
        )
        line = store.images.iloc[row]
        assert line["image_id"] == image_id
        assert (line["domain"], line["label"]) == (file.domain, file.label)
        assert (line["width"], line["height"]) == image.size
        assert store.image_path(row) == file.path
    assert info.layer == clip.resolve_layer(layer)
    assert info.grid == ([] if tokens == "cls" else [4, 4])
    assert (info.n_images, info.n_skipped, info.clip_sha) == (N_IMAGES, 0, clip.sha)
    assert info.shard_rows == [5, 5, 5, 5, 3]


def test_worker_processes_change_nothing(images: Images, clip: Clip, tmp_path: Path) -> None:
    (images.roots["photo"] / "bad.png").write_bytes(b"no image")
    images = found(tmp_path)
    for workers in (0, 2):
        run(images, tmp_path / str(workers), clip, workers=workers, allow_skipped=True)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def in_child(work: Callable[[], object]) -> multiprocessing.context.ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.parametrize(
    ("at", "kill"),
    [(0, signal.SIGKILL), (12, signal.SIGKILL), (12, signal.SIGINT), (22, signal.SIGKILL)],
)
def test_a_run_killed_anywhere_goes_on_to_the_same_bytes(
    images: Images,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    kill: signal.Signals,
) -> None:
    shutil.copy(images.files[1].path, images.roots["photo"] / "twin.png")
    images = found(tmp_path)
    reached = tmp_path / "reached"

    def stop_at(done: int, _total: int) -> None:
        if done > at:
            reached.touch()
            time.sleep(60)

    child = in_child(lambda: run(images, tmp_path / "killed", clip, progress=stop_at))
    while not reached.exists():
        assert child.is_alive()
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, kill)
    child.join()
    assert child.exitcode != 0
    n_before = len(list((tmp_path / "killed").glob("0*.parquet")))
    reads = count_reads(monkeypatch)
    run(images, tmp_path / "killed", clip)
    assert [f.path for f in images.files[5 * n_before :]] == reads
    run(images, tmp_path / "whole", clip)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert n_before == at // 5


def test_a_finished_store_reads_no_image_again(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = run(images, tmp_path / "store", clip)
    reads = count_reads(monkeypatch)
    assert run(images, tmp_path / "store", clip) == info
    assert reads == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": "2"}, "layer '1', and now '2'"),
        ({"tokens": "cls"}, "tokens 'all', and now 'cls'"),
        ({"dtype": "float32"}, "dtype 'float16', and now 'float32'"),
        ({"shard_images": 6}, "shard_images 5, and now 6"),
    ],
)
def test_other_settings_are_refused_by_name(
    images: Images, clip: Clip, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    run(images, tmp_path / "store", clip)
    with pytest.raises(UserError, match=says):
        run(images, tmp_path / "store", clip, **change)  # type: ignore[arg-type]


def test_another_list_of_images_is_refused(images: Images, clip: Clip, tmp_path: Path) -> None:
    run(images, tmp_path / "store", clip)
    fewer = Images(images.roots, images.files[:-1])
    with pytest.raises(UserError, match="n_files 23, and now 22"):
        run(fewer, tmp_path / "store", clip)
    Image.new("RGB", (9, 9)).save(images.files[0].path)
    with pytest.raises(UserError, match="another list of images"):
        run(images, tmp_path / "store", clip)


def test_equal_contents_are_embedded_once_also_across_shards(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    shutil.copy(images.files[0].path, images.roots["sketch"] / "class0" / "000-again.png")
    shutil.copy(images.files[0].path, images.roots["photo"] / "class1" / "zz.png")
    info = run(found(tmp_path), tmp_path / "store", clip)
    assert (info.n_images, info.n_skipped) == (N_IMAGES, 2)
    assert skipped(tmp_path / "store") == [
        ["path", "domain", "reason"],
        ["class0/000.png", "sketch", "duplicate of sketch/class0/000-again.png"],
        ["class1/zz.png", "photo", "duplicate of sketch/class0/000-again.png"],
    ]
    assert EmbeddingStore.open(tmp_path / "store").images["image_id"].is_unique


def add_broken_files(images: Images) -> dict[str, str]:
    """Every kind of file that is none; what the reason must say."""
    folder = images.roots["photo"] / "class0"
    whole = images.files[0].path.read_bytes()
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "fits.jpg").write_bytes(b"SIMPLE  =                    T" + b" " * 2850)
    (folder / "link.png").symlink_to("nowhere.png")
    (folder / "folder.jpg").mkdir()
    Image.new("1", (8000, 6251)).save(folder / "bomb.png")
    return {
        "empty.png": "empty",
        "cut.png": "cut short",
        "fits.jpg": "not a JPEG",
        "link.png": "broken link",
        "folder.jpg": "folder",
        "bomb.png": "50 megapixels",
    }


def test_files_that_are_no_images_are_listed_and_cost_nothing_else(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    expected = add_broken_files(images)
    run(images, tmp_path / "clean", clip, shard_images=100)
    info = run(found(tmp_path), tmp_path / "store", clip, allow_skipped=True, shard_images=100)
    assert (info.n_images, info.n_skipped) == (N_IMAGES, len(expected))
    listed = {Path(path).name: reason for path, _, reason in skipped(tmp_path / "store")[1:]}
    assert listed.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in listed[name]
    clean, store = (EmbeddingStore.open(tmp_path / name) for name in ("clean", "store"))
    assert clean.images.equals(store.images)
    everything = np.arange(N_IMAGES)
    assert torch.allclose(clean.read(everything), store.read(everything), atol=1e-3)


def test_more_than_one_percent_skipped_ends_with_4_and_the_work_is_kept(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_broken_files(images)
    images = found(tmp_path)
    out = tmp_path / "store"
    with pytest.raises(UserError, match=r"6 of 29 images \(20\.7%\).*--allow-skipped") as caught:
        run(images, out, clip)
    assert caught.value.exit_code == 4
    assert len(skipped(out)) == 7
    assert not (out / "store.json").exists()
    reads = count_reads(monkeypatch)
    run(images, out, clip, allow_skipped=True)
    assert reads == []
    run(images, tmp_path / "other", clip, allow_skipped=True)
    assert contents(out) == contents(tmp_path / "other")


@pytest.mark.parametrize(("n_bad", "refused"), [(1, False), (2, True)])
def test_one_percent_itself_is_let_through_and_duplicates_do_not_count(
    tmp_path: Path, clip: Clip, n_bad: int, refused: bool
) -> None:
    paths = write_images(tmp_path / "sketch", 90 - n_bad)
    for number in range(n_bad):
        (tmp_path / "sketch" / f"bad{number}.png").touch()
    for number in range(10):
        shutil.copy(paths[0], tmp_path / "sketch" / f"twin{number}.png")
    roots = {"sketch": tmp_path / "sketch"}
    images = Images(roots, find_images(roots))
    assert len(images.files) == 100
    if refused:
        with pytest.raises(UserError, match=r"2 of 100 images \(2\.0%\)"):
            run(images, tmp_path / "store", clip, "projected", "cls", batch_size=64)
    else:
        info = run(images, tmp_path / "store", clip, "projected", "cls", batch_size=64)
        assert info.n_skipped == 11


def test_nothing_readable_makes_no_store_even_when_skipping_is_allowed(
    tmp_path: Path, clip: Clip
) -> None:
    (tmp_path / "sketch").mkdir()
    (tmp_path / "sketch" / "a.png").touch()
    roots = {"sketch": tmp_path / "sketch"}
    with pytest.raises(UserError, match="none of 1 images") as caught:
        run(Images(roots, find_images(roots)), tmp_path / "store", clip, allow_skipped=True)
    assert caught.value.exit_code == 4


def test_a_name_that_is_no_utf8_is_skipped(images: Images, clip: Clip, tmp_path: Path) -> None:
    odd = os.fsencode(images.roots["photo"]) + b"/\xff.png"
    try:
        Image.new("RGB", (5, 5), "red").save(os.fsdecode(odd))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    run(found(tmp_path), tmp_path / "store", clip, allow_skipped=True)
    assert skipped(tmp_path / "store")[1:] == [
        ["\\udcff.png", "photo", "the name is not valid UTF-8"]
    ]


def test_shards_shrink_where_tokens_are_many(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shard_images(layer: str, tokens: str, dtype: str = "float16") -> int:
        source = Source(clip.name, layer, tokens)  # type: ignore[arg-type]
        settings = (images.files, images.roots, tmp_path / "store", clip, source, dtype, 4096)
        return plan_store(*settings).shard_images

    assert shard_images("projected", "cls") == 4096
    assert shard_images("0", "all") == 4096
    monkeypatch.setattr(room, "SHARD_BYTES", 17 * 64 * 2 * 100)
    assert shard_images("0", "all") == 100
    assert shard_images("0", "patch") == 106
    assert shard_images("0", "all", "float32") == 50
    monkeypatch.setattr(room, "SHARD_BYTES", 1)
    assert shard_images("0", "cls") == 1


def test_values_that_float16_cannot_hold_are_refused(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = clip.embed_images
    monkeypatch.setattr(clip, "embed_images", lambda *a: give(*a) * 1e6)
    with pytest.raises(UserError, match="use --dtype float32"):
        run(images, tmp_path / "half", clip)
    assert run(images, tmp_path / "single", clip, dtype="float32").n_images == N_IMAGES


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"layer": "9"}, "no layer 9"),
        ({"layer": "projected", "tokens": "patch"}, "needs a block"),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_anything_is_written(
    images: Images, clip: Clip, tmp_path: Path, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run(images, tmp_path / "store", clip, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


def test_a_worker_that_dies_is_reported_and_the_run_goes_on_later(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path) -> tuple[str, Image.Image]:
        if path == images.files[7].path:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path)

    monkeypatch.setattr(loading, "read_image", die)
    with pytest.raises(UserError, match="a decoding process died"):
        run(images, tmp_path / "store", clip, workers=1)
    monkeypatch.undo()
    assert run(images, tmp_path / "store", clip).n_images == N_IMAGES


def test_a_fault_of_ours_is_not_taken_for_a_bad_image(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(_: Path) -> tuple[str, Image.Image]:
        raise RuntimeError("ours")

    monkeypatch.setattr(loading, "read_image", fault)
    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="ours"):
            run(images, tmp_path / "store", clip, workers=workers)


def test_progress_counts_every_candidate_also_after_a_stop(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "store", clip, progress=stop)
    assert [done for done, _ in calls] == [3, 5, 8, 10, 13]
    calls.clear()
    run(images, tmp_path / "store", clip, progress=lambda *c: calls.append(c))
    assert calls == [(13, 23), (15, 23), (18, 23), (20, 23), (23, 23), (23, 23)]


def test_workers_by_default_are_few_for_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(32), raising=False)
    assert [loading.default_workers(n) for n in (1, 63, 64, 200, 10**6)] == [0, 0, 1, 3, 8]


def test_a_bad_image_in_a_worker_is_only_a_reason(images: Images, clip: Clip) -> None:
    (images.roots["photo"] / "x.png").touch()
    with pytest.raises(BadImage):
        read_image(images.roots["photo"] / "x.png")
    file = ImageFile(images.roots["photo"] / "x.png", "photo", "")
    (batch,) = loading.load_images([file], clip.preprocess, [[0]], 1)
    assert batch == [loading.Refused(0, "the file is empty")]
