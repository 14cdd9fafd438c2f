"""A decoder that hangs, or takes its process down, costs the one image and nothing else."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sae.clip import image_loader
from sae.clip.model import Clip
from sae.core.errors import UserError
from sae.data.images import read_image
from sae.data.sources.folders import find_images, find_roots
from sae.data.store import EmbeddingStore
from tests.support.sae.embedded import Images, contents, run, skipped
from tests.support.sae.small_clip import write_images
from tests.support.sae.sources import write_tar

BAD = 7
"""Place of the image that the decoder cannot stand."""
HANGS, ENDS = "longer than", "ended the process"


def sleep() -> None:
    time.sleep(60)


def sleep_deaf() -> None:
    """As C code sleeps: no signal wakes it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def plant(images: Images, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Makes the decoder do something when it meets the bad image."""

    def planted(fault: Callable[[], None]) -> None:
        def read(path: Path, most: int) -> tuple[str, Image.Image]:
            if path == images.files[BAD].path:
                fault()
            return read_image(path, most)

        monkeypatch.setattr(image_loader, "read_image", read)
        monkeypatch.setattr(image_loader, "DEADLINE", 0.5)
        monkeypatch.setattr(image_loader, "_GRACE", 0.2)

    return planted


@pytest.mark.parametrize(
    ("fault", "workers", "said"),
    [
        (sleep, 0, HANGS),
        (sleep, 2, HANGS),
        (sleep_deaf, 2, HANGS),
        (die, 1, ENDS),
    ],
)
def test_the_image_is_listed_and_all_others_are_embedded(
    fault: Callable[[], None],
    workers: int,
    said: str,
    images: Images,
    clip: Clip,
    tmp_path: Path,
    plant: Callable[[Callable[[], None]], None],
) -> None:
    plant(fault)
    run(images, tmp_path / "store", clip, workers=workers, allow_skipped=True)
    [[path, domain, reason]] = skipped(tmp_path / "store")[1:]
    file = images.files[BAD]
    assert (path, domain) == (str(file.path.relative_to(images.roots[file.domain])), file.domain)
    assert said in reason
    others = [file.path.name for place, file in enumerate(images.files) if place != BAD]
    rows = EmbeddingStore.open(tmp_path / "store").images
    assert [Path(path).name for path in rows["path"]] == others


def test_a_process_that_dies_once_costs_nothing(
    images: Images,
    clip: Clip,
    tmp_path: Path,
    plant: Callable[[Callable[[], None]], None],
) -> None:
    run(images, tmp_path / "wanted", clip, workers=1)
    first = tmp_path / "first"

    def die_once() -> None:
        if not first.exists():
            first.touch()
            die()

    plant(die_once)
    run(images, tmp_path / "store", clip, workers=1)
    assert contents(tmp_path / "store") == contents(tmp_path / "wanted")


def test_above_one_percent_it_ends_with_the_list(
    images: Images, clip: Clip, tmp_path: Path, plant: Callable[[Callable[[], None]], None]
) -> None:
    plant(die)
    with pytest.raises(UserError, match=r"1 of 23 images \(4\.3%\)") as caught:
        run(images, tmp_path / "store", clip, workers=1)
    assert caught.value.exit_code == 4


def test_no_process_is_left_when_the_reader_stops_early(images: Images, clip: Clip) -> None:
    loader = image_loader.ImageLoader(images.files, clip.preprocess, workers=2)
    stream = loader.load([[n] for n in range(20)])
    next(stream)
    stream.close()
    assert loader._pool is None  # no other door tells


def test_a_lasting_loader_reads_streams_one_after_the_other(images: Images, clip: Clip) -> None:
    loader = image_loader.ImageLoader(images.files, clip.preprocess, workers=1, lasting=True)
    first = next(loader.load([[n] for n in range(20)]))
    again = list(loader.load([[0, 1], [2]]))
    assert [one.candidate for batch in (first, *again) for one in batch] == [0, 0, 1, 2]


@pytest.mark.slow
def test_thirteen_archives_with_twenty_bad_members(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_images(tmp_path / "drawn", 1980)
    members = [(f"{n:05d}.png", file.read_bytes()) for n, file in enumerate(files)]
    bomb = io.BytesIO()
    Image.new("1", (8000, 6251)).save(bomb, "png")
    for n in range(5):
        content = members[n][1]
        members += [
            (f"cut{n}.png", content[: len(content) // 2]),
            (f"bomb{n}.png", bomb.getvalue() + bytes([n])),
            (f"text{n}.jpg", b"no image %d" % n),
            (f"sleep{n}.png", content + bytes([n])),
        ]
    for shard in range(13):
        write_tar(tmp_path / "shards" / f"{shard:06d}.tar", members[shard::13])

    def read(path: Path, most: int) -> tuple[str, Image.Image]:
        if path.name.startswith("sleep"):
            sleep_deaf()
        return read_image(path, most)

    monkeypatch.setattr(image_loader, "read_image", read)
    monkeypatch.setattr(image_loader, "DEADLINE", 1.0)
    places = {"photo": tmp_path / "shards" / "{000000..000012}.tar"}
    images = Images(find_roots(places), find_images(places))
    options = {"batch_size": 64, "shard_images": 512, "allow_skipped": True}
    info = run(images, tmp_path / "store", clip, "projected", "cls", workers=2, **options)
    assert info.n_images == 1980
    reasons = {Path(path).name: reason for path, _, reason in skipped(tmp_path / "store")[1:]}
    said = {"cut": "cut short", "bomb": "50 megapixels", "text": "not a JPEG", "sleep": HANGS}
    assert len(reasons) == 20
    for name, reason in reasons.items():
        assert said[name.partition(".")[0].rstrip("01234")] in reason
