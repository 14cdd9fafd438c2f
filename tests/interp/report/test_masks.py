"""Masks of latents: which files there are, and what a stranger's run cannot do with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.records.types import Evidence
from interp.report.gallery.cards import frame_box
from interp.report.masks import write_masks
from interp.report.sheets import sheet_png
from interp.run.run import Run
from sae.core.errors import UserError
from sae.data.view import Heat
from tests.support.commands import interp
from tests.support.interp import synthetic_run as synthetic

GRID = (7, 7)


def run_with(folder: Path, *paths: str, heat: bytes | None = None) -> Path:
    """A run of one latent of patches whose first examples have these paths, and this heat."""
    images = synthetic.make_images(folder / "images", ("photo",), per_class=4)
    (one,) = synthetic.make_evidence(folder / "images", images, 1, GRID)
    by_id = {e.image_id: e for e in one.of("explain", "top")}
    renamed = {
        image_id: {"path": path, **({"heat": heat} if heat else {})}
        for image_id, path in zip(by_id, paths, strict=False)
    }
    examples = [
        dataclasses.replace(e, **renamed.get(e.image_id, {}))  # type: ignore[arg-type]
        for e in one.examples
    ]
    evidence = [Evidence(one.stats, tuple(examples))]
    return synthetic.write_run(
        folder / "results" / "run", folder / "images", images, evidence, grid=GRID
    )


def test_each_active_image_has_one_mask_under_its_own_name(tmp_path: Path) -> None:
    run = Run(run_with(tmp_path, "cat/a.jpg", "cat/a.png", "cat/b.tar.jpeg"))
    written = write_masks(run, [0], tmp_path / "out")
    assert written == tmp_path / "out" / "masks"
    folder = written / "latent-00000" / "photo"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {"cat/a.png", "cat/a.png.png", "cat/b.tar.png"} <= found
    active = {e.image_id for e in run.evidence.of(0).examples if e.act > 0}
    assert len([name for name in found if name.endswith(".png")]) == len(active)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_masks_of_an_earlier_call_do_not_stay_among_the_new_ones(tmp_path: Path) -> None:
    run = Run(run_with(tmp_path))
    old = tmp_path / "out" / "masks" / "latent-00000" / "photo" / "old.png"
    old.parent.mkdir(parents=True)
    old.touch()
    write_masks(run, [0], tmp_path / "out")
    assert not old.exists()


@pytest.mark.parametrize("path", ["../../../escaped.png", "/tmp/escaped.png", "a/../../../b.png"])
def test_a_path_of_a_strangers_run_leads_nowhere_else(tmp_path: Path, path: str) -> None:
    run = Run(run_with(tmp_path, path))
    with pytest.raises(UserError, match="refused"):
        write_masks(run, [0], tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("escaped*"))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_heat_of_another_grid_is_refused_when_it_is_read(tmp_path: Path) -> None:
    run = Run(run_with(tmp_path, "cat/a.jpg", heat=bytes(48)))
    with pytest.raises(UserError, match=r"examples\.parquet .*heat of another grid"):
        write_masks(run, [0], tmp_path / "out")


def test_where_a_store_does_not_know_the_sizes_the_images_do(tmp_path: Path) -> None:
    run = Run(run_with(tmp_path))
    table = run.path.parent / "store" / "images.parquet"
    pd.read_parquet(table).assign(width=0, height=0).to_parquet(table)
    folder = write_masks(run, [0], tmp_path / "out") / "latent-00000"
    masks = list(folder.rglob("*.png"))
    assert masks
    for mask in masks:
        original = tmp_path / "images" / mask.relative_to(folder)
        assert Image.open(mask).size == Image.open(original).size


def test_no_heat_turns_it_off_on_the_sheet(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    for words, heat in (((), True), (("--no-heat",), False)):
        out = tmp_path / f"heat {heat}"
        assert interp("show", 0, "--run", run, "--out", out, *words) == 0
        assert (out / "latent-00000.png").read_bytes() == sheet_png(Run(run), 0, heat=heat)
    assert sheet_png(Run(run), 0, heat=True) != sheet_png(Run(run), 0, heat=False)


def test_the_patches_of_each_view_in_the_frame_around_an_image() -> None:
    values = np.zeros((4, 4), np.uint8)
    wide, tall = (200, 100), (100, 200)
    assert frame_box(wide, Heat(values, "crop")) == [25, 25, 50, 50, 0, 0]
    assert frame_box(wide, Heat(values, "squash")) == [0, 25, 100, 50, 0, 0]
    assert frame_box(tall, Heat(values, "squash")) == [25, 0, 50, 100, 0, 0]
    assert frame_box(tall, Heat(values, "pad")) == [0, 0, 100, 100, 25, 0]
    oblong = np.zeros((2, 4), np.uint8)  # patches of a model that is twice as wide as high
    assert frame_box((100, 100), Heat(oblong, "crop")) == [0, 25, 100, 50, 0, 0]
