from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sae.clip.model import load_clip
from sae.core.errors import UserError
from sae.data.view import Box, view_box
from sae.steering.segment.masks import Masks, as_seen
from tests.sae.steering.segment.conftest import HEIGHT, WIDTH, Painted
from tests.support.sae.small_clip import PREPROCESS, small_clip

GRID = (2, 2)


def test_a_patch_is_the_class_of_most_of_its_pixels_and_the_smaller_of_equals() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[0, :2], mask[0:2, 2:] = 7, [[7, 3], [3, 3]]
    mask[2, :2], mask[3, 0] = 255, 255
    seen = as_seen(mask, Box(0, 0, 4, 4), GRID, 4)
    assert seen.patches.tolist() == [[0, 3], [255, 0]]
    assert np.array_equal(seen.pixels, mask)


def test_rows_and_columns_are_not_exchanged() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, 4:] = 5  # above, to the right
    assert as_seen(mask, Box(0, 0, 8, 8), GRID, 8).patches.tolist() == [[0, 5], [0, 0]]


def test_a_wide_mask_is_cut_or_stretched_as_its_image_is() -> None:
    mask = np.tile(np.arange(8, dtype=np.uint8), (4, 1))  # 4 high, 8 wide: columns 0 to 7
    assert as_seen(mask, Box(2, 0, 4, 4), GRID, 4).pixels[0].tolist() == [2, 3, 4, 5]
    assert as_seen(mask, Box(0, 0, 8, 4), GRID, 4).pixels[0].tolist() == [1, 3, 5, 7]
    padded = as_seen(mask, Box(0, -2, 8, 8), GRID, 8).pixels
    assert padded[:, 0].tolist() == [255, 255, 0, 0, 0, 0, 255, 255]


def test_what_the_patches_leave_over_of_the_input_counts_nowhere() -> None:
    mask = np.tile(np.arange(5, dtype=np.uint8), (5, 1))
    seen = as_seen(mask, Box(0, 0, 5, 5), GRID, 5)  # patches of 2 pixels on 5
    assert seen.pixels.shape == (4, 4)
    assert seen.patches.tolist() == [[0, 2], [0, 2]]


def masks_of(painted: Painted, folder: Path) -> Masks:
    return Masks(folder, painted.store, "squash", 64)


def test_numbers_come_of_grey_and_of_palettes_and_folders_may_lack_the_domain(
    painted: Painted, tmp_path: Path
) -> None:
    plain = masks_of(painted, painted.masks)
    assert plain.rows().tolist() == list(range(painted.store.info.n_images))
    shutil.copytree(painted.masks / "photo", tmp_path / "masks")
    for path in (tmp_path / "masks").rglob("*.png"):
        mask = Image.fromarray(np.asarray(Image.open(path)))
        mask.putpalette([0, 0, 0, 90, 200, 30, 90, 200, 30] + [9, 9, 9] * 253)
        mask.save(path)
    again = masks_of(painted, tmp_path / "masks")
    for row in (0, 7):
        assert np.array_equal(plain.read(row).patches, again.read(row).patches)
        assert set(np.unique(again.read(row).pixels)) == {0, 1, 2, 255}
    assert plain.name(2) == "2"
    (tmp_path / "world.json").write_text(json.dumps({"mask_names": ["nothing", "cat"]}))
    assert [masks_of(painted, tmp_path / "masks").name(n) for n in (1, 2)] == ["cat", "2"]


def test_masks_that_do_not_fit_are_refused_in_one_line(painted: Painted, tmp_path: Path) -> None:
    def refusal(image: Image.Image, **options: str) -> str:
        image.save(path, **options)
        with pytest.raises(UserError) as error:
            masks_of(painted, tmp_path / "masks").read(0)
        assert "\n" not in str(error.value)
        return str(error.value)

    path = tmp_path / "masks" / "photo" / painted.store.images["path"][0]
    path.parent.mkdir(parents=True)
    said = refusal(Image.new("L", (HEIGHT, WIDTH)))
    assert f"has {HEIGHT} x {WIDTH} pixels, but its image" in said
    assert f"has {WIDTH} x {HEIGHT}" in said
    assert "its pixels are of mode RGB" in refusal(Image.new("RGB", (WIDTH, HEIGHT)))
    assert "its pixels are of mode I;16" in refusal(Image.new("I;16", (WIDTH, HEIGHT)))
    assert "save it as PNG" in refusal(Image.new("L", (WIDTH, HEIGHT)), format="JPEG")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged or cut short"):
        masks_of(painted, tmp_path / "masks").read(0)
    with pytest.raises(UserError, match=r"has no mask of .*; the first would be .*squares"):
        masks_of(painted, tmp_path).rows()
    with pytest.raises(UserError, match="is no folder"):
        masks_of(painted, tmp_path / "none")


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("size", [(96, 40), (40, 96)])
def test_a_mask_lies_where_the_models_own_transform_puts_the_image(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    cuts = {**PREPROCESS, "resize_mode": mode}
    clip = load_clip(small_clip(tmp_path / "vit", preprocess=cuts), "cpu")
    mask = np.zeros(size[::-1], np.uint8)
    mask[16:36, 22:36] = 1
    image = Image.fromarray(255 * mask).convert("RGB")
    drawn = clip.preprocess.resize(image)[..., 0] > 127
    seen = as_seen(mask, view_box(size, clip.view), (4, 4), clip.image_size).pixels
    assert drawn.sum() > 100
    assert (drawn != (seen == 1)).mean() < 0.02
