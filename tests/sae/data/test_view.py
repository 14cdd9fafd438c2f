"""Where a model's patches lie on an image: the box agrees with open_clip's own transform."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sae.clip.model import Preprocess, load_clip
from sae.core.errors import Notice, UserError
from sae.core.files import write_json
from sae.data.store import EmbeddingStore
from sae.data.view import VIEWS, Box, Heat, find_view, view_box
from tests.support.sae.small_clip import PREPROCESS, small_clip
from tests.support.sae.stores import write_store


def test_the_box_of_each_view_of_a_wide_a_tall_and_a_square_image() -> None:
    assert view_box((256, 128), "crop") == Box(64, 0, 128, 128)
    assert view_box((128, 257), "crop") == Box(0, 64, 128, 128)
    assert view_box((256, 128), "squash") == Box(0, 0, 256, 128)
    assert view_box((256, 128), "pad") == Box(0, -64, 256, 256)
    assert view_box((128, 256), "pad") == Box(-64, 0, 256, 256)
    for view in VIEWS.values():
        assert view_box((90, 90), view) == Box(0, 0, 90, 90)
    # a model whose input is twice as wide as high
    assert view_box((100, 100), "crop", 2.0) == Box(0, 25, 100, 50)
    assert view_box((100, 100), "pad", 2.0) == Box(-50, 0, 200, 100)
    assert view_box((100, 100), "squash", 2.0) == Box(0, 0, 100, 100)


@pytest.mark.parametrize("mode", VIEWS)
@pytest.mark.parametrize("shape", [(64, 64), (64, 96)], ids=["square", "oblong"])
@pytest.mark.parametrize("size", [(256, 128), (128, 256), (75, 331), (100, 100)])
def test_a_mark_lands_where_the_box_says(
    mode: str, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """Through open_clip's transform: every part of the image is looked for in the model's input."""
    transform = image_transform_v2(PreprocessCfg(size=shape, resize_mode=mode), is_train=False)
    box = view_box(size, VIEWS[mode], shape[1] / shape[0])
    n_seen = 0
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        x, y = share * size[0], share * size[1]
        xs, ys = np.arange(size[0])[None, :] + 0.5, np.arange(size[1])[:, None] + 0.5
        spread = min(size) / 16
        blob = 255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * spread**2))
        image = Image.fromarray(np.repeat(blob[..., None], 3, 2).astype(np.uint8))
        seen = Preprocess(transform).resize(image)[..., 0].astype(float)
        row, column = np.unravel_index(seen.argmax(), seen.shape)
        expected = (
            (x - box.left) / box.width * shape[1],
            (y - box.top) / box.height * shape[0],
        )
        if 3 < expected[0] < shape[1] - 3 and 3 < expected[1] < shape[0] - 3:
            n_seen += 1
            assert column + 0.5 == pytest.approx(expected[0], abs=1.5)
            assert row + 0.5 == pytest.approx(expected[1], abs=1.5)
    assert n_seen >= 1


def test_heat_is_spread_over_its_part_and_is_nowhere_else() -> None:
    values = np.zeros((4, 4), np.uint8)
    values[0, 3] = 255
    assert (np.argwhere(Heat(values, "crop").spread((256, 128)) == 255) >= [0, 160]).all()
    for view, where in (("squash", (16, 224)), ("crop", (16, 176)), ("pad", (0, 224))):
        spread = Heat(values, view).spread((256, 128))  # type: ignore[arg-type]
        assert spread.shape == (128, 256)
        row, column = np.unravel_index(spread.argmax(), spread.shape)
        assert abs(row - where[0]) <= 17
        assert abs(column - where[1]) <= 17
    spread = Heat(np.full((4, 4), 200, np.uint8), "crop").spread((256, 128))
    assert (spread[:, 64:192] == 200).all()
    assert not spread[:, :64].any()
    assert not spread[:, 192:].any()
    assert not Heat(np.zeros((4, 4), np.uint8), "squash").mask((30, 20)).any()


def test_names_tell_the_view_of_every_model_of_open_clip() -> None:
    listed = open_clip.list_pretrained()
    assert len(listed) > 150
    for model, tag in listed:
        mode = open_clip.get_pretrained_cfg(model, tag).get("resize_mode") or "shortest"
        assert find_view(f"{model}/{tag}") == VIEWS[mode], (model, tag)
    assert find_view("ViT-B-32/random") == find_view("PE-Core-B-16/random") == "crop"
    assert find_view("tiny") == "squash"
    assert find_view("hf-hub:timm/ViT-B-16-SigLIP2") == "squash"
    assert find_view("siglip/hf-hub:timm/ViT-L-16-SigLIP-256") == "squash"  # saev's spelling


@pytest.mark.parametrize("mode", VIEWS)
def test_a_model_of_any_resize_mode_says_how_it_cuts(tmp_path: Path, mode: str) -> None:
    name = small_clip(tmp_path / "vit", preprocess={**PREPROCESS, "resize_mode": mode})
    assert load_clip(name, "cpu").view == find_view(name) == VIEWS[mode]


def test_an_unknown_resize_mode_is_refused_in_one_line(tmp_path: Path) -> None:
    name = small_clip(tmp_path / "vit", preprocess={**PREPROCESS, "resize_mode": "stretch"})
    with pytest.raises(UserError, match=r"no resize_mode that is known \(shortest, squash, long"):
        load_clip(name, "cpu")


def test_a_store_says_the_view_and_an_older_one_is_looked_up_by_its_model(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", torch.zeros(3, 4, 2))
    assert store.info.view == ""
    for clip, view in (("tiny", "squash"), ("ViT-B-32/openai", "crop")):
        assert of_model(store, clip).view == view
    assert of_model(store, "tiny", view="pad").view == "pad"
    with pytest.warns(Notice, match="does not say how local-dir:gone cuts images"):
        assert of_model(store, "local-dir:gone").view == "crop"


def of_model(store: EmbeddingStore, clip: str, **changes: str) -> EmbeddingStore:
    write_json(store.path / "store.json", dataclasses.replace(store.info, clip=clip, **changes))
    return EmbeddingStore.open(store.path)


def test_an_unknown_view_in_a_store_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", torch.zeros(3, 4, 2))
    with pytest.raises(UserError, match="has 'view'"):
        of_model(store, "tiny", view="mirror")
