"""Heat of an object planted on wide and tall images lies on it, wherever a person sees it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from interp.explain.examples import ShowConfig, choose_shown
from interp.explain.page import draw_page
from interp.llm.types import Picture
from interp.pictures.painter import Painter
from interp.records.types import Example
from interp.report.canvas import DPI, HOT, Canvas
from interp.report.sheets import sheet_png
from interp.run.run import Run
from sae.clip.model import load_clip
from sae.data.view import View, view_box
from tests.support.commands import Walk, interp, sae
from tests.support.interp import planted_objects as planted
from tests.support.interp.browsers import LOADED, Watched
from tests.support.sae.small_clip import PREPROCESS, VIT, small_clip

Floats = NDArray[np.float64]
MODELS: dict[str, View] = {
    "tiny": "squash",
    "another squash": "squash",
    "crop": "crop",
}
N_PER_SHAPE = 5


class Made(NamedTuple):
    run: Path
    view: View
    grid: tuple[int, int]


def model_called(name: str, folder: Path) -> str:
    if name == "another squash":  # with random weights
        return small_clip(folder / "vit", {**VIT, "patch_size": 8}, preprocess=PREPROCESS)
    return planted.copy_tiny(folder / name, "shortest") if name == "crop" else name


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Wide and tall images through all commands; the latent is fitted on other images."""
    folder, view = tmp_path_factory.mktemp("heat"), MODELS[request.param]
    name = model_called(request.param, folder)
    for shape in ("wide", "tall"):
        for number in range(N_PER_SHAPE):
            path = folder / "photo" / "disc" / f"{shape}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            planted.plant(shape, view, number).image.save(path)
    clip = load_clip(name, "cpu")
    others = (planted.plant(s, view, 100 + n) for s in planted.SIZES for n in range(12))
    planted.fit_sae(clip, others).save(folder / "sae")
    store = ("--layer", planted.LAYER, "--tokens", "patch", "--clip", name)
    words = ("--domain", f"photo={folder / 'photo'}", "--out", folder / "store", "--workers", 0)
    assert sae("embed", *words, *store) == 0
    assert interp("collect", folder / "sae", folder / "store", "--run", folder / "run") == 0
    return Made(folder / "run", view, clip.grid())


def require_on_disc(heat: Floats, example: Example, made: Made) -> None:
    """`heat` (h, w) over the original: it peaks within a patch of the disc, covers half of it, and
    most of it lies there.
    """
    shape, number = Path(example.path).stem.split("-")
    disc = planted.plant(shape, made.view, int(number)).mask
    assert heat.shape == disc.shape
    box = view_box(disc.shape[::-1], made.view)
    patch = box.height / made.grid[0], box.width / made.grid[1]
    away = ndimage.distance_transform_edt(~disc, sampling=[1 / side for side in patch])
    assert away[heat == heat.max()].max() <= 1, (shape, number)
    hot = heat >= heat.max() / 2
    assert (hot & disc).sum() / disc.sum() >= 0.5, (shape, number)
    assert (hot & disc).sum() / hot.sum() >= 0.5, (shape, number)


def opacity(plain: Image.Image, shown: Image.Image, size: tuple[int, int]) -> Floats:
    """How much of the colour of heat lies on each pixel, over an image of `size`."""
    before, after = (
        np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR), float)
        for picture in (plain, shown)
    )
    colour = np.array(HOT) - before
    share: Floats = ((after - before) * colour).sum(2) / (colour**2).sum(2)
    return share


def letterboxed(side: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where an image of `size` lies in the middle of a square: left, top, right, bottom."""
    w, h = (side * length / max(size) for length in size)
    return (side - w) / 2, (side - h) / 2, (side + w) / 2, (side + h) / 2


def size_of(example: Example) -> tuple[int, int]:
    return planted.SIZES[Path(example.path).stem.split("-")[0]]


def shapes_of(examples: Sequence[Example]) -> set[str]:
    return {Path(example.path).stem.split("-")[0] for example in examples}


def test_in_the_grid_that_a_model_is_shown(made: Made) -> None:
    run = Run(made.run)
    evidence = run.evidence.of(0)
    shown = choose_shown(evidence, ShowConfig())
    page = draw_page(
        shown, run.evidence.image, ShowConfig(), Painter("grid", 4, 448), run.evidence.heat
    )
    _, twin = (
        Image.open(io.BytesIO(part.data)).convert("RGB")
        for part in page.drawn[:4]
        if isinstance(part, Picture)
    )
    by_id = {example.image_id: example for example in evidence.examples}
    for slot, image_id in enumerate(page.codes.values()):
        example, corner = by_id[image_id], (slot % 4 * 448, slot // 4 * 448)
        strip, side = 448 // 8, 448 - 448 // 8 - 2  # grid.py: the strip, then the picture's frame
        left, top = corner[0] + strip // 2 + 1, corner[1] + strip + 1
        place = letterboxed(side, size_of(example))
        picture = twin.crop([round(at + (left, top)[i % 2]) for i, at in enumerate(place)])
        red, green, blue = np.asarray(picture, int).transpose(2, 0, 1)
        line = (red > 190) & (green < 90) & (blue > 190)
        inside = ndimage.binary_fill_holes(line)
        region = Image.fromarray(255 * inside.astype(np.uint8)).resize(size_of(example))
        require_on_disc((np.asarray(region) > 127).astype(float), example, made)
    assert shapes_of([by_id[image_id] for image_id in page.codes.values()]) == {"wide", "tall"}


def test_on_the_sheet(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Example, float, float, float]] = []
    draw = Canvas.image

    def noted(canvas: Canvas, example: Example, x: float, side: float, *more: Any) -> None:
        drawn.append((example, x, canvas.y, side))
        draw(canvas, example, x, side, *more)

    monkeypatch.setattr(Canvas, "image", noted)
    shown, plain = (
        Image.open(io.BytesIO(sheet_png(Run(made.run), 0, heat=heat))) for heat in (True, False)
    )
    for example, x, y, side in drawn[: len(drawn) // 2]:
        margin, whole = 0.015, side - 0.03
        box = [
            round(DPI * (at + margin + (x, y)[i % 2]))
            for i, at in enumerate(letterboxed(whole, size_of(example)))
        ]
        heat = opacity(plain.crop(box), shown.crop(box), size_of(example))
        require_on_disc(heat, example, made)
    assert shapes_of([example for example, *_ in drawn]) == {"wide", "tall"}


def test_in_the_gallery(made: Made, browser: Any) -> None:
    assert interp("cards", "--run", made.run) == 0
    page = Watched(browser, made.run, "#/0", device_scale_factor=2).page
    assert min(page.evaluate(LOADED)) > 0
    seen = []
    tops = Run(made.run).evidence.of(0).of("explain", "top")
    frames = page.locator(".tiles.large .frame").all()
    assert len(frames) == min(8, len(tops))
    for frame, example in zip(frames, tops, strict=False):
        pictures = [Image.open(io.BytesIO(frame.screenshot()))]
        page.keyboard.press("h")
        pictures.append(Image.open(io.BytesIO(frame.screenshot())))
        page.keyboard.press("h")
        box = letterboxed(pictures[0].width, size_of(example))
        shown, plain = (picture.crop([round(at) for at in box]) for picture in pictures)
        require_on_disc(opacity(plain, shown, size_of(example)), example, made)
        seen.append(example)
    assert shapes_of(seen) == {"wide", "tall"}


def test_in_the_masks_which_have_the_originals_size(made: Made, tmp_path: Path) -> None:
    assert interp("show", 0, "--run", made.run, "--out", tmp_path, "--masks") == 0
    kept = {e.path: e for e in Run(made.run).evidence.of(0).examples if e.heat is not None}
    assert len(kept) == 2 * N_PER_SHAPE
    folder = tmp_path / "masks" / "latent-00000" / "photo"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")} == set(kept)
    for path, example in kept.items():
        with Image.open(folder / path) as mask:
            assert (mask.mode, mask.size) == ("1", size_of(example))
            heat = np.asarray(mask).astype(float)
        require_on_disc(heat, example, made)
        spread = spread_by_hand(example, made)
        expected = spread >= spread.max() / 2
        assert (expected != heat).mean() < 0.01


def spread_by_hand(example: Example, made: Made) -> Floats:
    """(h, w): linear between the patches' centres, 0 where the model saw nothing."""
    width, height = size_of(example)
    w, h = (min(width, height),) * 2 if made.view == "crop" else (width, height)
    rows, columns = made.grid
    packed = np.frombuffer(example.heat or b"", np.uint8).reshape(rows, columns).astype(float)
    y = ((np.arange(height) + 0.5 - (height - h) / 2) / h * rows) - 0.5
    x = ((np.arange(width) + 0.5 - (width - w) / 2) / w * columns) - 0.5
    across = np.array([np.interp(x, np.arange(columns), row) for row in packed])
    spread = np.array([np.interp(y, np.arange(rows), column) for column in across.T]).T
    spread[(y < -0.5) | (y > rows - 0.5)] = 0
    spread[:, (x < -0.5) | (x > columns - 0.5)] = 0
    return spread


def test_without_patches_masks_are_refused_and_sheets_are_as_before(
    walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("show", 0, "--run", walk.run, "--out", tmp_path / "a", "--masks") == 2
    said = capsys.readouterr().err
    assert "without a grid of patches" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "a").exists()
    latent = Run(walk.run).evidence.live()[0]
    assert sheet_png(Run(walk.run), latent) == sheet_png(Run(walk.run), latent, heat=False)
