import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from interp.pictures.grid import FIRST, SECOND, Tile, compose, is_low_resolution
from interp.pictures.heatmap import outline, region
from sae.data.view import Heat
from tests.support.paths import ROOT


def sketch(width: int = 300, height: int = 300) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).line((0, 0, width, height), fill="black", width=3)
    return image


def photo(seed: int = 0, width: int = 300, height: int = 300) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def drawn(tiles: list[Tile], columns: int = 4, **kwargs: object) -> np.ndarray:
    picture = compose(tiles, columns, **kwargs)  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


def test_letters_of_both_sets_are_disjoint_and_without_i_o_q():
    assert len(set(FIRST + SECOND)) == 12 + 11
    assert not set("IOQ") & set(FIRST + SECOND)


def test_twelve_tiles_make_a_page_of_896_by_672():
    pixels = drawn([Tile(letter, sketch()) for letter in FIRST])
    assert pixels.shape == (672, 896, 3)


def test_pure_grey_drawings_become_png_and_coloured_ones_jpeg_444():
    assert compose([Tile("A", sketch())], 1).media_type == "image/png"
    coloured = compose([Tile("A", photo())], 1)
    assert coloured.media_type == "image/jpeg"
    assert Image.open(io.BytesIO(coloured.data)).layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]


def test_the_same_tiles_give_the_same_bytes():
    tiles = [Tile(letter, photo(n)) for n, letter in enumerate(FIRST)]
    assert compose(tiles, 4).data == compose(tiles, 4).data


def test_only_the_letter_differs_between_equal_images():
    one, two = drawn([Tile("A", sketch())], 1), drawn([Tile("B", sketch())], 1)
    rows = np.flatnonzero((one != two).any(axis=(1, 2)))
    assert rows.size
    assert rows.max() < 26


def test_the_letter_has_a_cap_height_of_18_to_20_pixels_in_the_strip():
    strip = drawn([Tile("H", sketch())], 1)[:26, :, 0]
    rows = np.flatnonzero((strip < 100).any(axis=1))
    assert 17 <= rows.max() - rows.min() + 1 <= 20


def test_strip_is_light_grey_with_a_separator_and_the_picture_is_framed():
    pixels = drawn([Tile("A", sketch())], 1)[..., 0]
    assert pixels[5, 200] == 232
    assert (pixels[26:28, :] == 200).all()
    assert (pixels[28:, 14] == 200).all()
    assert (pixels[28:, 209] == 200).all()
    assert (pixels[40:, 5] == 255).all()


@pytest.mark.parametrize(("background", "grey"), [(255, 255), (128, 128)])
def test_a_wide_image_is_letterboxed_on_the_given_grey_and_never_cropped(background, grey):
    wide = Image.new("RGB", (2000, 300), (60, 60, 60))
    wide.paste((0, 0, 0), (0, 0, 20, 300))
    pixels = drawn([Tile("A", wide)], 1, background=background)[..., 0]
    assert pixels[40, 112] == grey
    assert pixels[28 + 98, 112] == 60
    assert pixels[28 + 98, 16] < 20


def test_the_background_is_chosen_by_the_images_border_when_not_given():
    white, dark = Image.new("RGB", (400, 100), "white"), Image.new("RGB", (400, 100), "black")
    pixels = drawn([Tile("A", white), Tile("B", dark)], 2)[..., 0]
    assert pixels[40, 112] == 255
    assert pixels[40, 224 + 112] == 128


def test_a_20_pixel_image_is_enlarged_four_times_by_whole_pixels():
    tiny = Image.new("RGB", (20, 20), "black")
    pixels = drawn([Tile("A", tiny)], 1, background=255)[29:-1, 16:-16, 0]
    assert (pixels == 0).sum() == 80 * 80
    assert set(np.unique(pixels)) == {0, 255}


@pytest.mark.parametrize("side", [64, 100, 127, 128, 223, 500])
def test_images_from_64_pixels_on_fill_the_cell(side):
    pixels = drawn([Tile("A", Image.new("RGB", (side, side), "black"))], 1, background=255)
    assert (pixels[29:-1, 15:-15] == 0).all()


def test_a_sliver_of_2000_by_20_keeps_a_visible_row():
    pixels = drawn([Tile("A", Image.new("RGB", (2000, 3), "black"))], 1, background=255)
    assert (pixels[29:-1, 16:-16, 0] == 0).any()


def test_hairlines_keep_three_tenths_of_their_contrast():
    page = Image.new("RGB", (512, 512), "white")
    ImageDraw.Draw(page).line((0, 256, 511, 256), fill="black", width=1)
    pixels = drawn([Tile("A", page)], 1)[29:-1, 16:-16, 0]
    assert pixels.min() < 255 - 255 * 0.3  # bilinear alone: 0.27


def test_only_images_under_64_pixels_are_low_resolution():
    assert is_low_resolution(Image.new("RGB", (63, 20)))
    assert not is_low_resolution(Image.new("RGB", (64, 20)))


@pytest.mark.parametrize(("columns", "cell"), [(0, 224), (4, 200)])
def test_a_page_that_cannot_be_is_refused(columns, cell):
    with pytest.raises(ValueError, match="columns of"):
        compose([Tile("A", sketch())], columns, cell)


def test_the_region_is_where_the_heat_is_at_least_half_its_maximum():
    heat = np.zeros((7, 7), np.uint8)
    heat[1:4, 1:4] = 200
    heat[5, 5] = 90  # under half
    mask = region(Heat(heat, "squash"), (196, 196))
    assert mask[70, 70]
    assert not mask[5 * 28 + 14, 5 * 28 + 14]
    assert 0.1 < mask.mean() < 0.25


def test_small_regions_are_dropped_unless_nothing_would_be_left():
    heat = np.zeros((14, 14), np.uint8)
    heat[2:8, 2:8] = 255
    heat[12, 12] = 140
    assert not region(Heat(heat, "squash"), (196, 196))[12 * 14 :, 12 * 14 :].any()
    alone = np.zeros((14, 14), np.uint8)
    alone[12, 12] = 255
    assert region(Heat(alone, "squash"), (196, 196)).any()


def test_the_heat_map_lies_over_the_part_of_a_wide_image_that_the_model_saw():
    heat = np.full((7, 7), 255, np.uint8)
    mask = region(Heat(heat, "crop"), (300, 100))
    assert mask[:, 100:200].all()
    assert not mask[:, :100].any()
    assert not mask[:, 200:].any()
    assert region(Heat(heat, "squash"), (300, 100)).all()
    assert region(Heat(heat, "pad"), (300, 100)).all()


def test_a_twin_has_a_magenta_outline_and_a_faded_outside_but_keeps_the_inside():
    heat = np.zeros((7, 7), np.uint8)
    heat[2:5, 2:5] = 255
    image = Image.new("RGB", (194, 194), (20, 120, 40))
    pixels = np.asarray(outline(image, Heat(heat, "squash"))).astype(int)
    assert tuple(pixels[97, 97]) == (20, 120, 40)
    assert tuple(pixels[5, 5]) == (90, 140, 100)
    row = (pixels[97] == (255, 0, 255)).all(axis=1)
    assert row.sum() == 4  # two pixels on either side


def test_without_heat_or_without_twin_nothing_is_drawn_on_the_image():
    heat = Heat(np.full((7, 7), 255, np.uint8), "squash")
    plain = compose([Tile("A", sketch())], 1).data
    assert compose([Tile("A", sketch(), heat)], 1).data == plain
    assert compose([Tile("A", sketch())], 1, twin=True).data == plain
    assert compose([Tile("A", sketch(), heat)], 1, twin=True).data != plain


def test_the_grid_does_not_import_matplotlib():
    import subprocess
    import sys

    code = (
        "import sys; from PIL import Image; from interp.pictures.grid import Tile, compose;"
        "compose([Tile('A', Image.new('RGB', (9, 9)))], 1); print('matplotlib' in sys.modules)"
    )
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "False", done.stderr
