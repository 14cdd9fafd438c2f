"""A world on disk: the same bytes from any number of workers, complete or taken up again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sae.core.errors import UserError
from sae.world import OBJECTS, PLANTED, concepts_of, sample, write_world
from sae.world.drawing.draw import draw

N = 130  # three chunks of work


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "drawn"
    write_world(out, N, seed=3, size=32, workers=1)
    return out


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_truth_names_every_file_by_its_hash_and_tells_what_is_drawn(world: Path) -> None:
    rows = pq.read_table(world / "truth.parquet").to_pylist()
    assert len(rows) == N
    assert len(list(world.rglob("*.png"))) == N
    for i, row in enumerate(rows):
        scene = sample(30_000_000 + i)
        assert row["seed"] == scene.seed
        assert (row["domain"], row["label"]) == (scene.domain, scene.objects[0].name)
        assert row["path"] == f"{scene.domain}/{scene.label}/{scene.seed:08d}.png"
        data = (world / row["path"]).read_bytes()
        assert row["image_id"] == hashlib.sha256(data).hexdigest()
        assert {c.name for c in PLANTED if row[c.name]} == concepts_of(scene)


def test_a_file_holds_the_drawing_of_its_scene(world: Path) -> None:
    for path in list(world.rglob("*.png"))[:5]:
        pixels = np.asarray(Image.open(path))
        assert np.array_equal(pixels, draw(sample(int(path.stem)), 32).pixels)


def test_world_json_tells_the_settings(world: Path) -> None:
    info = json.loads((world / "world.json").read_text())
    assert info == {"format": 1, "n": N, "seed": 3, "size": 32, "paired": False, "version": 1}
    assert not (world / "world.unfinished.json").exists()


def test_two_workers_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    write_world(
        tmp_path / "w", N, seed=3, size=32, workers=2, progress=lambda *p: progress.append(p)
    )
    assert _digests(tmp_path / "w") == _digests(world)
    assert progress == [(64, N), (128, N), (N, N)]


def test_a_finished_world_is_left_alone(world: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in world.rglob("*")}
    write_world(world, N, seed=3, size=32, workers=1)
    assert {p: p.stat().st_mtime_ns for p in world.rglob("*")} == before


def test_a_stopped_world_is_completed_without_drawing_again(world: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        write_world(tmp_path / "w", N, seed=3, size=32, workers=1, progress=stop)
    assert not (tmp_path / "w" / "world.json").exists()
    drawn = {p: p.stat().st_mtime_ns for p in (tmp_path / "w").rglob("*.png")}
    assert len(drawn) == 64
    write_world(tmp_path / "w", N, seed=3, size=32, workers=1)
    assert _digests(tmp_path / "w") == _digests(world)
    assert all(p.stat().st_mtime_ns == then for p, then in drawn.items())


def test_a_mask_tells_the_object_of_each_pixel_and_world_json_the_names(tmp_path: Path) -> None:
    write_world(tmp_path / "w", 24, seed=3, size=64, workers=1, masks=True)
    names = json.loads((tmp_path / "w" / "world.json").read_text())["mask_names"]
    assert names == ["background", *OBJECTS]
    files = sorted((tmp_path / "w" / "masks").rglob("*.png"))
    assert len(files) == 24
    seen = set()
    for file in files:
        assert (tmp_path / "w" / file.relative_to(tmp_path / "w" / "masks")).exists()
        scene = sample(int(file.stem), "sketch" if file.parts[-3] == "sketch" else "photo")
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("L", (64, 64))
            numbers = np.asarray(image)
        for placed, mask in zip(scene.objects, draw(scene, 64).masks, strict=True):
            assert {names[number] for number in numbers[mask]} <= {placed.name}
        assert not numbers[~draw(scene, 64).masks.any(axis=0)].any()
        seen |= {len(scene.objects), len(scene.names)}
    assert {1, 2} < seen  # one object, two of different kinds, and more


def test_masks_change_no_other_byte_and_can_be_added_later(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "later")
    write_world(tmp_path / "w", N, seed=3, size=32, workers=2, masks=True)
    write_world(tmp_path / "later", N, seed=3, size=32, workers=1, masks=True)
    with_masks = _digests(tmp_path / "w")
    assert _digests(tmp_path / "later") == with_masks
    others = {name: d for name, d in with_masks.items() if not name.startswith("masks/")}
    before = _digests(world)
    assert others.pop("world.json") != before.pop("world.json")
    assert others == before
    write_world(tmp_path / "w", N, seed=3, size=32)  # has all that is asked for, and more
    assert _digests(tmp_path / "w") == with_masks


def test_a_stopped_world_keeps_the_masks_it_was_begun_with(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for out in (tmp_path / "stopped", tmp_path / "whole"):
        with contextlib.suppress(KeyboardInterrupt):
            write_world(
                out, 70, size=32, workers=1, masks=True,
                progress=stop if out.name == "stopped" else None,
            )  # fmt: skip
    assert len(list((tmp_path / "stopped").rglob("*.png"))) == 128
    write_world(tmp_path / "stopped", 70, size=32, workers=1)
    assert _digests(tmp_path / "stopped") == _digests(tmp_path / "whole")


def test_a_paired_world_shows_every_scene_in_both_domains(tmp_path: Path) -> None:
    write_world(tmp_path / "w", 20, seed=1, size=32, workers=1, paired=True)
    rows = pq.read_table(tmp_path / "w" / "truth.parquet").to_pylist()
    seeds = [row["seed"] for row in rows]
    assert seeds == [10_000_000 + i // 2 for i in range(20)]
    assert [row["domain"] for row in rows] == ["sketch", "photo"] * 10
    for sketch, photo in zip(rows[::2], rows[1::2], strict=True):
        assert sketch["label"] == photo["label"]
        assert sketch["left"] == photo["left"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "not 0"),
        ({"n": 7, "paired": True}, "even number of pictures, not 7"),
        ({"n": 4, "seed": -1}, "not -1"),
        ({"n": 4, "seed": 100_000}, "not 100000"),
        ({"n": 4, "size": 16}, "not 16"),
        ({"n": 4, "workers": -2}, "not -2"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        write_world(tmp_path / "w", **settings)
    assert not (tmp_path / "w").exists()


def test_another_world_in_the_folder_is_refused_by_what_differs(world: Path) -> None:
    with pytest.raises(UserError, match=r"seed 3 \(not 4\)"):
        write_world(world, N, seed=4, size=32)


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else, no world"):
        write_world(tmp_path, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        write_world(tmp_path / "file", 4)
