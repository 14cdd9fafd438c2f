"""The effect on a label's text: its value, and how often a wrong label shows one."""

from __future__ import annotations

import numpy as np
import pytest

from interp.pipeline.causal.effect import Changes, measure_effect


def changes(seed: int, gain: float = 0.0, text_sd: float = 1.0) -> tuple[Changes, Changes]:
    """Of 12 images and 41 texts that each answer to the latent in a way of their own, the first by
    `gain` more; and of 5 control latents."""
    rng = np.random.default_rng(seed)
    per_text = rng.normal(0, text_sd, 41)
    per_text[0] += gain
    own = per_text + rng.normal(0, 0.5, (12, 41))
    control = rng.normal(0, text_sd, (5, 1, 41)) + rng.normal(0, 0.5, (5, 12, 41))
    return own, control


def test_the_effect_is_beyond_control_latents_and_beyond_other_texts() -> None:
    own, control = changes(0, gain=8.0)
    per_text = [
        np.mean([own[i, t] - np.mean(control[:, i, t]) for i in range(12)]) for t in range(41)
    ]
    effect = measure_effect(own, control, seed=3)
    assert effect.mean == pytest.approx(per_text[0] - np.mean(per_text[1:]))
    assert effect.low < effect.mean < effect.high
    assert effect.is_shown


def test_what_moves_all_texts_alike_or_every_latent_alike_is_no_effect() -> None:
    own, control = changes(1, text_sd=0.01)
    assert not measure_effect(own + 5.0, control, 0).is_shown  # the latent, but each text
    alike = np.zeros(41)
    alike[0] = 5.0
    assert not measure_effect(own + alike, control + alike, 0).is_shown  # its text, but each latent


def test_a_label_no_better_than_other_texts_seldom_shows_an_effect() -> None:
    shown = [measure_effect(*changes(seed), seed).is_shown for seed in range(150)]
    assert np.mean(shown) <= 0.06  # about .025 is meant; 150 draws


def test_more_images_do_not_make_a_wrong_label_right() -> None:
    """An interval of the images alone would shrink to nothing: every second text is above 0."""
    own, control = changes(4)
    own[:, 0] = np.sort(own.mean(0))[30]  # above three quarters of the texts, on every image
    assert not measure_effect(np.repeat(own, 40, 0), np.repeat(control, 40, 1), 0).is_shown


def test_the_same_seed_gives_the_same_interval() -> None:
    one, two = (measure_effect(*changes(5), seed=9) for _ in range(2))
    assert one == two
