"""The tiny CLIP: its training data, its loss, its training, and what the shipped weights know."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sae.clip.model import load_clip
from sae.world.drawing.draw import draw
from sae.world.scene.captions import caption, one_attribute_caption
from sae.world.scene.concepts import OBJECTS
from sae.world.scene.scene import concepts_of, sample
from sae.world.tiny_clip.architectures import ARCHITECTURES
from sae.world.tiny_clip.measure import measure
from sae.world.tiny_clip.train import Heads, TrainingConfig, contrastive_loss, train
from sae.world.tiny_clip.train_data import (
    FIRST_SEED,
    NO_OBJECT,
    Examples,
    _chunk,
    claims_of,
    make_examples,
    patch_labels,
)


@pytest.fixture(scope="module")
def examples() -> Examples:
    return _chunk(FIRST_SEED, FIRST_SEED + 24)


def test_claims_of_a_caption_are_what_it_says_and_true() -> None:
    for seed in range(40):
        scene, rng = sample(seed), np.random.default_rng(seed)
        assert claims_of(caption(scene, rng), scene) <= concepts_of(scene)
        assert set(scene.names) <= claims_of(caption(scene, rng, 1.0), scene)
        assert 1 <= len(claims_of(one_attribute_caption(scene, rng), scene)) <= 3


def test_patch_label_is_the_object_that_covers_the_patch() -> None:
    scene = sample(3)
    drawing = draw(scene, 128)
    labels = patch_labels(scene, drawing.masks).reshape(8, 8)
    for row, column in np.ndindex(8, 8):
        cover = drawing.masks[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        share = cover.mean((1, 2))
        if share.max() >= 1 / 8:
            assert OBJECTS[labels[row, column]] == scene.objects[share.argmax()].name
        else:
            assert labels[row, column] == NO_OBJECT
    assert (labels != NO_OBJECT).any()


def test_loss_does_not_punish_a_caption_that_is_also_true_of_another_image() -> None:
    image = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), dim=1)
    text = image.clone()
    apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    both = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    one_each: Any = SimpleNamespace(truth=apart, claims=apart)
    true_of_both: Any = SimpleNamespace(truth=both, claims=apart)
    scale = torch.tensor(20.0)
    assert contrastive_loss(image, text, scale, one_each) > 0.5
    assert contrastive_loss(image, text, scale, true_of_both) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arch", "n_blocks"), [pytest.param("vit", 6, marks=pytest.mark.slow), ("conv", 0)]
)
def test_training_is_the_same_for_a_seed_and_loads_as_any_local_model(
    examples: Examples, tmp_path: Path, arch: str, n_blocks: int
) -> None:
    config = TrainingConfig(arch=arch, n_views=24, batch_size=8, warmup_steps=1)
    everything = dataclasses.replace(examples, easy=np.ones(24, bool))
    written = []
    for name in ("one", "two"):
        train(everything, 1783, config, tmp_path / name)
        written.append((tmp_path / name / "open_clip_model.safetensors").read_bytes())
    assert written[0] == written[1]
    assert len(written[0]) <= 4_000_000
    clip = load_clip(f"local-dir:{tmp_path / 'one'}", "cpu")
    assert clip.embed_texts(["a cup"]).shape == (1, 256)
    assert clip.embed_images(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 256)
    assert clip.n_blocks == n_blocks


@pytest.mark.slow
def test_two_seeds_of_training_share_no_scene() -> None:
    one, two = (make_examples(1, seed, workers=1).images for seed in (0, 1))
    assert not np.array_equal(one, two)
    assert np.array_equal(one[0], _chunk(FIRST_SEED, FIRST_SEED + 1).images[0])


def test_the_patch_head_tells_each_patch_of_a_coarse_map_by_its_place() -> None:
    heads = Heads(4, ARCHITECTURES["conv"], 3)
    last_map = torch.zeros(1, 384, 2, 2)
    plain = heads.patch_logits(last_map)
    last_map[0, :, 1, 0] = 1.0  # the lower left quarter of the picture
    changed = (heads.patch_logits(last_map) != plain).any(1)[0]  # (8, 8)
    assert changed[4:, :4].all()
    assert not changed[:4].any()
    assert not changed[:, 4:].any()


def test_shipped_weights_read_scenes_that_they_never_saw() -> None:
    quality = measure(load_clip("tiny", "cpu"), 240)
    assert min(quality.top1.values()) > 0.9
    assert min(v for kind, v in quality.auroc.items() if kind != "orientation") > 0.85


def test_a_model_without_knowledge_is_measured_as_such(examples: Examples, tmp_path: Path) -> None:
    config = TrainingConfig(n_views=8, batch_size=8, warmup_steps=1)
    everything = dataclasses.replace(examples, easy=np.ones(24, bool))
    train(everything, 1783, config, tmp_path)
    quality = measure(load_clip(f"local-dir:{tmp_path}", "cpu"), 120)
    assert max(quality.top1.values()) < 0.2
