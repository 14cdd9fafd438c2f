"""Both layouts show the same images under the same letters."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from interp.explain.examples import ShowConfig, choose_shown
from interp.explain.explainer import ExplainConfig, VlmExplainer, explain_prompt
from interp.explain.page import draw_page
from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Picture
from interp.pictures import painter as layouts
from interp.pictures.grid import CELLS, FIRST, Tile, compose, letterbox, single
from interp.pictures.painter import Layout, Painter, draw
from sae.data.view import Heat
from tests.support.interp.explaining import ColourSource, colour_of
from tests.support.servers.loopback import Loopback

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)]
VALUES = np.zeros((7, 7), np.uint8)
VALUES[2:5, 2:5] = 255
HEAT = Heat(VALUES, "squash")


def tiles(heat: Heat | None = None) -> list[Tile]:
    return [
        Tile(letter, Image.new("RGB", (300, 300), colour), heat, f"image {letter}")
        for letter, colour in zip(FIRST, COLOURS, strict=False)
    ]


def pixels(picture: Picture) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


def pictures(parts: tuple[str | Picture, ...]) -> list[Picture]:
    return [part for part in parts if isinstance(part, Picture)]


def words(parts: tuple[str | Picture, ...]) -> list[str]:
    return [part for part in parts if isinstance(part, str)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """The first tile of each picture that was drawn."""
    seen: list[Tile] = []

    def draw_one(tile: Tile, *how: int) -> Picture:
        seen.append(tile)
        return single(tile, *how)

    def draw_grid(tiles: list[Tile], *how: int, **more: Any) -> Picture:
        seen.append(tiles[0])
        return compose(tiles, *how, **more)

    monkeypatch.setattr(layouts, "single", draw_one)
    monkeypatch.setattr(layouts, "compose", draw_grid)
    return seen


# A single picture


@pytest.mark.parametrize("cell", CELLS)
def test_a_single_picture_is_a_full_square_without_strip_or_frame(cell: int) -> None:
    drawn = pixels(single(Tile("A", Image.new("RGB", (300, 300), (9, 9, 9))), cell))
    assert drawn.shape == (cell, cell, 3)
    assert (drawn == 9).all()


def test_a_wide_single_picture_is_padded_to_a_square_and_not_cropped() -> None:
    drawn = pixels(single(Tile("A", Image.new("RGB", (400, 100))), 224, 255))[..., 0]
    assert (drawn[:80] == 255).all()
    assert (drawn[90:130] == 0).all()
    assert (drawn[150:] == 255).all()


def test_a_single_picture_is_png_when_grey_and_jpeg_when_coloured() -> None:
    grey, coloured = (single(Tile("A", Image.new("RGB", (9, 9), c))) for c in ("grey", "red"))
    assert (grey.media_type, coloured.media_type) == ("image/png", "image/jpeg")


def test_a_single_picture_with_a_heat_map_is_outlined() -> None:
    image = Image.new("RGB", (224, 224), (20, 120, 40))
    drawn = pixels(single(Tile("A", image, HEAT)))
    assert np.abs(drawn[112, 112] - (20, 120, 40)).max() < 12
    assert np.abs(drawn[5, 5] - (90, 140, 100)).max() < 12
    assert (np.abs(drawn[112] - (255, 0, 255)).max(axis=1) < 60).sum() >= 2


def test_a_size_that_straddles_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="200 px"):
        single(tiles()[0], 200)


# A painter


def test_a_grid_is_one_picture_under_its_title() -> None:
    parts = Painter("grid", 4, 224).parts(tiles(), 255, "First set")
    assert parts == ("First set:", compose(tiles(), 4, 224, 255))
    assert Painter("grid", 4, 224).parts(tiles(), 255) == parts[1:]


def test_separate_pictures_stand_each_under_its_letter() -> None:
    parts = Painter("separate", 4, 224).parts(tiles(), 255, "First set")
    assert words(parts) == ["First set.\nPicture A:", "Picture B:", "Picture C:", "Picture D:"]
    assert [isinstance(part, Picture) for part in parts] == [False, True] * 4
    for picture, colour in zip(pictures(parts), COLOURS, strict=True):
        assert np.abs(pixels(picture) - colour).max() < 8


def test_separate_pictures_are_the_ones_that_stand_in_the_grid() -> None:
    separate = pictures(Painter("separate", 2, 224).parts(tiles()))
    (grid,) = pictures(Painter("grid", 2, 224).parts(tiles()))
    page = pixels(grid)
    for slot, picture in enumerate(separate):
        row, column = divmod(slot, 2)
        cell = page[row * 224 : (row + 1) * 224, column * 224 : (column + 1) * 224]
        assert np.abs(cell[120, 112] - pixels(picture)[112, 112]).max() < 8


def test_outlined_twins_come_after_the_grid_or_after_their_own_picture() -> None:
    grid = Painter("grid", 4, 224).parts(tiles(HEAT)[:2], 255, "First set")
    assert words(grid) == ["First set:", "First set with outlines:"]
    separate = Painter("separate", 4, 224).parts(tiles(HEAT)[:2], 255, "First set")
    assert [text.split("\n")[-1] for text in words(separate)] == [
        "Picture A:",
        "Picture A, outlined:",
        "Picture B:",
        "Picture B, outlined:",
    ]
    plain, twin, _, _ = pictures(separate)
    assert plain == single(tiles()[0], 224, 255)
    assert twin == single(tiles(HEAT)[0], 224, 255)
    assert plain != twin


@pytest.mark.parametrize("layout", ["grid", "separate"])
def test_no_tiles_are_shown_by_nothing_at_all(layout: Layout) -> None:
    assert Painter(layout, 4, 224).parts([], 255, "Second set") == ()


@pytest.mark.parametrize("layout", ["grid", "separate"])
def test_a_picture_is_drawn_when_it_is_asked_for_and_its_size_is_known_before(
    layout: Layout, drawn: list[object]
) -> None:
    shown = pictures(Painter(layout, 3, 224).parts(tiles(HEAT)))
    sizes = [picture.size for picture in shown]
    assert drawn == []
    assert sizes == [Image.open(io.BytesIO(picture.data)).size for picture in shown]
    assert len(drawn) == len(shown)


@pytest.mark.parametrize("layout", ["grid", "separate"])
def test_what_sending_needs_is_worked_out_while_drawing(
    layout: Layout, drawn: list[object]
) -> None:
    parts = Painter(layout, 4, 224).parts(tiles())
    draw(parts)
    n = len(drawn)
    for picture in pictures(parts):
        assert {"sha256", "base64"} <= set(vars(vars(picture)["_drawn"]))
    assert len(drawn) == n > 0


# The cache


def test_the_same_image_is_encoded_once_whatever_its_letter(drawn: list[Tile]) -> None:
    painter = Painter("separate", 4, 224)
    first = pictures(painter.parts(tiles(), 255))
    again = pictures(painter.parts([tile._replace(letter="M") for tile in tiles()], 255))
    pairs = zip(first, again, strict=True)
    assert all(one.data is two.data and one.base64 is two.base64 for one, two in pairs)
    assert len(drawn) == 4


def test_other_margins_and_other_outlines_are_other_pictures(drawn: list[Tile]) -> None:
    painter, image = Painter("separate", 4, 224), Image.new("RGB", (300, 100), "red")
    others = (VALUES // 2, np.roll(VALUES, 1), VALUES[:6], VALUES[:6].reshape(7, 6))
    heats = [None, HEAT, Heat(VALUES, "crop"), *(Heat(other, "squash") for other in others)]
    for heat in heats:
        for background in (255, 128, None):
            draw(painter.parts([Tile("A", image, heat, "one")], background))
    plain, outlined = 3, 3 * (len(heats) - 1)
    assert len(drawn) == plain + outlined
    draw(painter.parts([Tile("A", image, image_id="two")], 255))
    assert len(drawn) == plain + outlined + 1


def test_an_image_without_an_id_is_drawn_each_time(drawn: list[Tile]) -> None:
    painter = Painter("separate", 4, 224)
    for colour in ("red", "blue"):
        draw(painter.parts([Tile("A", Image.new("RGB", (30, 30), colour))]))
    assert [tile.image.getpixel((0, 0)) for tile in drawn] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize(("layout", "n_drawn"), [("separate", 16 + 8), ("grid", 8)])
def test_a_painter_that_holds_nothing_draws_the_same_bytes(
    drawn: list[Tile], layout: Layout, n_drawn: int
) -> None:
    forgetful, other = (Painter(layout, 4, 224, most) for most in (0, 10**9))
    for _ in range(2):
        assert forgetful.parts(tiles(HEAT), 255) == other.parts(tiles(HEAT), 255)
    assert len(drawn) == n_drawn


def test_an_image_is_brought_to_the_size_of_a_grids_cell_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: list[str] = []

    def fit(tile: Tile, *how: Any) -> Image.Image:
        fitted.append(tile.image_id)
        return letterbox(tile, *how)

    monkeypatch.setattr(layouts, "letterbox", fit)
    painter = Painter("grid", 4, 224)
    shown = [tile._replace(image=tile.image.resize((300, 100))) for tile in tiles(HEAT)]
    draw(painter.parts(shown, 255))
    again = [tile._replace(letter="M", heat=None) for tile in shown]
    draw(painter.parts([*again, *again], 255))
    assert sorted(fitted) == sorted(2 * [tile.image_id for tile in shown])  # plain and outlined
    for background, heat in ((128, HEAT), (255, Heat(np.roll(VALUES, 1), "squash"))):
        other = [tile._replace(heat=heat) for tile in shown]
        new = pictures(painter.parts(other, background))
        assert [one.data for one in new] == [
            compose(other, 4, 224, background, twin=twin).data for twin in (False, True)
        ]
    bare = tiles(HEAT)[0]._replace(image_id="", heat=None)
    for colour in COLOURS[:2]:
        image = Image.new("RGB", (300, 300), colour)
        (part,) = pictures(painter.parts([bare._replace(image=image)]))
        assert pixels(part)[120, 120].tolist() == pytest.approx(colour, abs=4)


def test_threads_that_draw_at_once_get_what_one_gets() -> None:
    painter = Painter("separate", 4, 224, 20_000)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: painter.parts(tiles(HEAT)), range(12)))
    assert all(parts == Painter("separate", 4, 224).parts(tiles(HEAT)) for parts in made)


# A page of the explainer


@pytest.mark.parametrize("heat", [None, VALUES.tobytes()], ids=["whole images", "patches"])
def test_both_layouts_of_a_page_have_the_same_letters_and_the_same_words(
    heat: bytes | None,
) -> None:
    source = ColourSource(heat=heat)
    shown = choose_shown(source.of(0), ShowConfig())
    grid, separate = (
        draw_page(shown, source.image, ShowConfig(), Painter(layout, 4, 224), source.heat)
        for layout in ("grid", "separate")
    )
    assert (grid.codes, grid.neg_codes) == (separate.codes, separate.neg_codes)
    assert grid.schema() == separate.schema()
    assert (grid.parts()[0], grid.parts()[-1]) == (separate.parts()[0], separate.parts()[-1])
    assert grid.outlined is separate.outlined is (heat is not None)
    assert len(pictures(grid.drawn)) == 2 + grid.outlined
    assert len(pictures(separate.drawn)) == 23 + 12 * separate.outlined
    titles = [text for text in words(separate.drawn) if "set" in text]
    assert titles == ["First set.\nPicture A:", "Second set.\nPicture N:"]


def test_each_letter_of_a_page_stands_at_the_image_that_the_page_says() -> None:
    source = ColourSource()
    shown = choose_shown(source.of(0), ShowConfig())
    page = draw_page(shown, source.image, ShowConfig(), Painter("separate", 4, 224), source.heat)
    images = {e.image_id: source.image(e) for e in (*shown.positives, *shown.negatives)}
    background = {"drawings": 255, "photos": 128, "mixed": None}[page.medium]
    for image_id, picture in zip(
        (*page.codes.values(), *page.neg_codes.values()), pictures(page.drawn), strict=True
    ):
        assert picture == single(Tile("A", images[image_id]), 224, background)


def test_the_layout_is_part_of_the_fingerprint() -> None:
    configs = [ExplainConfig(), ExplainConfig(layout="separate")]
    assert configs[0].layout == "grid"
    assert len({explain_prompt(config) for config in configs}) == 2


def test_a_server_that_looks_sees_the_same_colour_in_separate_pictures(tmp_path: Path) -> None:
    with Loopback() as server, Ledger(tmp_path / "calls.sqlite") as ledger:
        model = ChatModel(ClientConfig("fake/vision", server.base_url), ledger, "sk-test")
        config, source = ExplainConfig(layout="separate"), ColourSource(heat=VALUES.tobytes())

        async def main() -> list[str | None]:
            async with VlmExplainer(model, config, source.heat) as explainer:
                return [
                    (await explainer.explain(source.of(n), source.image)).label for n in range(3)
                ]

        assert asyncio.run(main()) == [f"a {colour_of(n)} area" for n in range(3)]
        assert all(len(chat.pictures) == 35 for chat in server.chats)
        system = server.chats[0].body["messages"][0]["content"]
    assert "line before each picture" in str(system)
