"""A class's latents -> as many random others that are as active on the class's images."""

from __future__ import annotations

import numpy as np

from sae.data.classes.latents import Floats, Ints

N_NEAR = 4
"""Latents of the nearest activation, among which chance decides."""


def draw_controls(mass: Floats, chosen: Ints, rng: np.random.Generator) -> Ints:
    """(n_classes, k) latents outside `chosen` (n_classes, k), of nearly the same sum of mass.

    `mass` (n_classes, n_latents) is what each latent is active on the class's images. From the
    heaviest chosen latent on, each gets a partner: one at random of the `N_NEAR` unused latents
    whose mass is nearest to its own, and to what the partners so far are short of.
    """
    return np.stack([_draw(*row, rng) for row in zip(mass, chosen, strict=True)])


def _draw(mass: Floats, chosen: Ints, rng: np.random.Generator) -> Ints:
    others = np.setdiff1d(np.arange(len(mass)), chosen)
    others = others[np.argsort(mass[others], kind="stable")]
    weights = mass[others]
    short, drawn = 0.0, []
    for wanted in np.sort(mass[chosen])[::-1]:
        at = int(np.searchsorted(weights, wanted + short))
        low = max(0, min(at - N_NEAR // 2, len(weights) - N_NEAR))
        pick = low + int(rng.integers(min(N_NEAR, len(weights) - low)))
        short += wanted - weights[pick]
        drawn.append(int(others[pick]))
        others, weights = np.delete(others, pick), np.delete(weights, pick)
    return np.array(drawn, np.int64)
