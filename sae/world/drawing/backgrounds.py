"""The nine backgrounds of the photos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from sae.world.drawing.raster import UNITS, Pixels, clouds, pixel_centres

Rgb = NDArray[np.float32]


def backdrop(name: str, size: int, rng: Generator, noise: Pixels) -> Pixels:
    """(size, size, 3) in about [0, 255]; `noise` (size, size) is the picture's grain."""
    painted = np.empty((size, size, 3), dtype=np.float32)
    painted[:] = _BACKGROUNDS[name](size, rng, noise)
    return painted


def _rgb(red: float, green: float, blue: float) -> Rgb:
    return np.array([red, green, blue], dtype=np.float32)


def _depth(size: int) -> Pixels:
    """(size, 1, 1): 0 at the top, 1 at the bottom."""
    return (pixel_centres(size) / UNITS).astype(np.float32)[:, None, None]


def _patches(rng: Generator, size: int, n_cells: int, height: float) -> Pixels:
    """(size, size, 1): smooth light and dark patches, `height` from darkest to brightest."""
    return ((clouds(rng, size, n_cells) - 0.5) * np.float32(height))[:, :, None]


def _plain(size: int, rng: Generator, noise: Pixels) -> Pixels:
    grey = np.float32(rng.uniform(125, 205))
    tint = rng.normal(0, 4, 3).astype(np.float32)
    return (grey + tint) * (1.08 - 0.2 * _depth(size)) + _patches(rng, size, 3, 20)


def _grass(size: int, rng: Generator, noise: Pixels) -> Pixels:
    green = _rgb(75, 140, 50) * (0.75 + 0.4 * _depth(size))
    blades: Pixels = 13 * noise[:, :, None]
    return green + _patches(rng, size, 16, 60) + blades


def _sky(size: int, rng: Generator, noise: Pixels) -> Pixels:
    depth = _depth(size)
    blue = _rgb(95, 160, 235) * (1 - depth) + _rgb(190, 220, 248) * depth
    haze: Pixels = 70 * np.clip(_patches(rng, size, 5, 2.2) - 0.1, 0, 1)
    return blue + haze


def _sand(size: int, rng: Generator, noise: Pixels) -> Pixels:
    yellow = _rgb(222, 190, 130) * (0.9 + 0.12 * _depth(size))
    grains: Pixels = 9 * noise[:, :, None]
    return yellow + _patches(rng, size, 6, 22) + grains


def _water(size: int, rng: Generator, noise: Pixels) -> Pixels:
    x, y = pixel_centres(size)[None, :], pixel_centres(size)[:, None]
    ripples = 18 * np.sin(y * 1.25 + 2 * np.sin(x * 0.22 + rng.uniform(0, 6)))
    blue = _rgb(35, 95, 150) * (0.85 + 0.3 * _depth(size))
    water: Pixels = blue + ripples.astype(np.float32)[:, :, None] + _patches(rng, size, 6, 25)
    return water


def _night(size: int, rng: Generator, noise: Pixels) -> Pixels:
    stars = np.zeros((UNITS, UNITS), dtype=np.uint8)
    stars[rng.integers(0, UNITS, 26), rng.integers(0, UNITS, 26)] = 225
    field = np.asarray(Image.fromarray(stars).resize((size, size), Image.Resampling.BOX))
    dark = _rgb(14, 16, 42) * (1.2 - 0.5 * _depth(size))
    starry: Pixels = np.maximum(dark, field[:, :, None].astype(np.float32))
    return starry


def _brick(size: int, rng: Generator, noise: Pixels) -> Pixels:
    places = pixel_centres(size)
    odd_row = places // 8 % 2
    joint_below = (places % 8 < 1.3)[:, None]
    joint_beside = (places[None, :] + 8 * odd_row[:, None]) % 16 < 1.3
    bricks = _rgb(158, 72, 55) + _patches(rng, size, 8, 50)
    is_joint = (joint_below | joint_beside)[:, :, None]
    wall: Pixels = np.where(is_joint, _rgb(190, 182, 172), bricks) + 6 * noise[:, :, None]
    return wall


def _wood(size: int, rng: Generator, noise: Pixels) -> Pixels:
    y = pixel_centres(size)[:, None]
    fibres = 14 * np.sin(y * 0.9 + 5 * clouds(rng, size, 4))
    gaps = 45 * (y % 21 < 1.2)
    wood: Pixels = (fibres - gaps + 5 * noise).astype(np.float32)[:, :, None]
    return _rgb(165, 112, 62) + wood


def _snow(size: int, rng: Generator, noise: Pixels) -> Pixels:
    x, y = pixel_centres(size)[None, :], pixel_centres(size)[:, None]
    drifts = np.sin(y * 0.3 + 1.2 * np.sin(x * 0.11 + rng.uniform(0, 6)) + rng.uniform(0, 6))
    shadow = np.clip(drifts, 0, 1).astype(np.float32)[:, :, None] * _rgb(26, 17, 6)
    return _rgb(242, 246, 252) - shadow + _patches(rng, size, 6, 12) + 3 * noise[:, :, None]


_BACKGROUNDS: dict[str, Callable[[int, Generator, Pixels], Pixels]] = {
    "plain": _plain,
    "grass": _grass,
    "sky": _sky,
    "sand": _sand,
    "water": _water,
    "night": _night,
    "brick": _brick,
    "wood": _wood,
    "snow": _snow,
}
