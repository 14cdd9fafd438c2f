import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sae.clip import image_loader
from sae.clip.model import Clip
from sae.core.errors import UserError
from sae.data.images import BadImage, read_image
from sae.data.sources.folders import ImageFile, find_images
from sae.data.store import EmbeddingStore
from sae.data.store_format import read_skipped
from tests.support.sae.embedded import Images, contents, count_reads, found, run, skipped
from tests.support.sae.small_clip import write_images

N_IMAGES = 23


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


def test_a_bad_image_in_a_worker_is_only_a_reason(images: Images, clip: Clip) -> None:
    (images.roots["photo"] / "x.png").touch()
    with pytest.raises(BadImage):
        read_image(images.roots["photo"] / "x.png")
    file = ImageFile(images.roots["photo"] / "x.png", "photo", "")
    (batch,) = image_loader.ImageLoader([file], clip.preprocess, 1).load([[0]])
    assert batch == [image_loader.Refused(0, "the file is empty")]


def test_no_cell_of_skipped_csv_is_a_formula(tmp_path: Path, clip: Clip) -> None:
    write_images(tmp_path / "sketch", 3)
    names = ["=1+1.png", "'=1.png", "@x.png", "-1.png", "+1.png", "plain.png"]
    for name in names:
        (tmp_path / "sketch" / name).write_bytes(b"no image")
    roots = {"sketch": tmp_path / "sketch"}
    run(Images(roots, find_images(roots)), tmp_path / "store", clip, allow_skipped=True)
    cells = sorted(line[0] for line in skipped(tmp_path / "store")[1:])
    assert cells == sorted(["'=1+1.png", "''=1.png", "'@x.png", "'-1.png", "'+1.png", "plain.png"])
    read = read_skipped(tmp_path / "store" / "skipped.csv")
    assert sorted(line.path for line in read) == sorted(names)


def test_a_lower_cap_of_pixels_skips_and_is_kept_with_the_store(
    images: Images, tmp_path: Path, clip: Clip
) -> None:
    Image.new("RGB", (300, 200)).save(images.roots["photo"] / "large.png")
    with_large = Images(images.roots, find_images(images.roots))
    info = run(with_large, tmp_path / "store", clip, allow_skipped=True, max_pixels=59_999)
    assert (info.n_images, info.n_skipped, info.max_pixels) == (23, 1, 59_999)
    assert "60000" not in skipped(tmp_path / "store")[1][2]
    assert "300 x 200 pixels is above" in skipped(tmp_path / "store")[1][2]
    with pytest.raises(UserError, match=r"max_pixels 59999, and now 50000000"):
        run(with_large, tmp_path / "store", clip, allow_skipped=True)
