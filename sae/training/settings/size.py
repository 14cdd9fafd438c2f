"""How many images of what width -> how large an SAE is trained where nobody said it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sae.training.config import TrainConfig

IMAGES_A_LATENT = 300
"""Active images of a latent, on average, that a large run is given: enough of both sides of the
split, and of the rarer half of its latents."""
LEAST_SPARSITY = 16
"""n_latents is at least so many times k: a latent that is active on more than a tenth of the
tokens counts as dense, and is not explained."""
MOST_EXPANSION = 8
"""n_latents is at most so many times the width; the trainer's own default is as many."""
MOST_THINGS = 8
"""Of an image's patches, many show the same: they count as so many different tokens at most."""
K_BY_WIDTH = ((768, 32), (512, 16), (0, 8))
"""k from a width on; of fewer than 64 images for each of these it is smaller, but at least 4."""


def choose_training(
    n_images: int, n_tokens: int, d: int, said: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Settings of a training on `n_images` of `n_tokens` vectors each, of width `d`.

    `said`: fields of `TrainConfig` that are given; batch size, passes and the like follow from the
    number of tokens in the trainer. The same numbers always give the same settings.
    """
    given = dict(said or {})
    k = given.get("k") or choose_k(n_images, d)
    n_latents = choose_n_latents(n_images, n_tokens, d, k)
    of_width = given.get("expansion", 0) * d
    if "k" not in given and (asked := given.get("n_latents") or of_width):
        k = max(1, min(k, asked // LEAST_SPARSITY))
    by_size = {"k": k, "n_latents": 0 if of_width else n_latents}
    return TrainConfig(**{**by_size, **given})


def choose_k(n_images: int, d: int) -> int:
    """Latents kept per token."""
    most = next(k for width, k in K_BY_WIDTH if d >= width)
    return max(4, min(most, n_images // 64))


def choose_n_latents(n_images: int, n_tokens: int, d: int, k: int) -> int:
    """Rows of the dictionary: a power of two, or the bound that it meets."""
    images_a_latent = max(1.0, min(float(IMAGES_A_LATENT), n_images / LEAST_SPARSITY))
    wanted = n_images * k * min(n_tokens, MOST_THINGS) / images_a_latent
    power = 1 << max(0, round(math.log2(max(wanted, 1.0))))
    return max(LEAST_SPARSITY * k, min(power, MOST_EXPANSION * d))
