"""How large an SAE is trained where nobody said it."""

from __future__ import annotations

import pytest

from sae.clip.ahead import Shape, shape_ahead
from sae.clip.config import SourceConfig
from sae.clip.model import load_clip
from sae.clip.vectors import name_store, vectors_of
from sae.training.config import TrainConfig
from sae.training.settings.size import choose_training


@pytest.mark.parametrize(
    ("n_images", "n_tokens", "d", "k", "n_latents"),
    [
        (300, 1, 256, 4, 64),
        (2_000, 1, 256, 8, 128),
        (8_000, 1, 256, 8, 256),
        (9_225, 1, 512, 16, 512),
        (100_000, 1, 512, 16, 4_096),  # at most 8 times the width
        (100_000, 1, 768, 32, 6_144),
        (2_000, 49, 768, 31, 4_096),
        (10, 1, 512, 4, 64),
    ],
)
def test_sizes_follow_from_images_and_width(n_images, n_tokens, d, k, n_latents) -> None:
    found = choose_training(n_images, n_tokens, d)
    assert (found.k, found.n_latents) == (k, n_latents)


def test_a_latent_is_not_dense_by_its_size_alone() -> None:
    for n_images in (50, 300, 1_000, 10_000, 1_000_000):
        for d in (64, 256, 512, 768, 1024):
            found = choose_training(n_images, 1, d)
            assert found.k / found.n_latents < 0.1


def test_what_was_said_stays() -> None:
    assert choose_training(300, 1, 256, {"n_latents": 10, "k": 2, "epochs": 3}) == TrainConfig(
        n_latents=10, k=2, epochs=3
    )
    assert choose_training(300, 1, 256, {"expansion": 4}).n_latents == 0
    assert choose_training(300, 1, 256, {"k": 8}).n_latents == 128


@pytest.mark.parametrize(
    ("d", "said", "k"),
    [
        (256, {"n_latents": 64}, 4),
        (256, {"n_latents": 32}, 2),
        (256, {"n_latents": 10}, 1),
        (256, {"n_latents": 4_096}, 8),
        (64, {"expansion": 1}, 4),
        (256, {"n_latents": 64, "k": 8}, 8),
    ],
)
def test_of_few_latents_fewer_are_kept_so_that_they_are_not_dense(d, said, k) -> None:
    assert choose_training(8_000, 1, d, said).k == k


@pytest.mark.parametrize(
    ("clip", "layer", "tokens"),
    [
        ("tiny", "projected", "cls"),
        ("tiny", "3", "patch"),
        ("tiny", "-1", "all"),
        ("tiny", "0", "cls"),
        ("tiny-conv", "projected", "cls"),
    ],
)
def test_the_shape_of_vectors_is_known_before_a_model_is_loaded(clip, layer, tokens) -> None:
    source = SourceConfig(clip=clip, layer=layer, tokens=tokens)
    model = load_clip(clip, "cpu", texts=False)
    true = vectors_of(model, name_store(model, source), "float16")
    grid = (true.grid[0], true.grid[1]) if true.grid else None
    assert shape_ahead(source) == Shape(true.d, true.tokens_per_image, grid)


def test_open_clips_models_tell_their_shape_and_the_hubs_do_not() -> None:
    vit = SourceConfig(clip="ViT-L-14/openai", layer="10", tokens="all")
    assert shape_ahead(vit) == Shape(1024, 257, (16, 16))
    assert shape_ahead(SourceConfig(clip="ViT-B-32/openai")) == Shape(512, 1, None)
    assert shape_ahead(SourceConfig(clip="hf-hub:org/name")) is None
