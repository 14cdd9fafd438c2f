"""The sixteen abstract forms. A constant never varies; a function draws from `vary`."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from sae.world.objects.shapes import (
    FULL_TURN,
    Part,
    Parts,
    along_edges,
    disc,
    ellipse,
    joined,
    line,
    polygon,
    regular,
)

CIRCLE: Parts = (disc(0, 0, 0.9),)
TRIANGLE: Parts = (Part(along_edges(regular(3, 0.95, middle=(0, 0.15))), "main"),)
SQUARE: Parts = (polygon((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),)
DIAMOND: Parts = (polygon((0, -0.95), (0.62, 0), (0, 0.95), (-0.62, 0)),)
HEXAGON: Parts = (Part(along_edges(regular(6, 0.92, first=0)), "main"),)
RINGS: Parts = (disc(0, 0, 0.95), disc(0, 0, 0.64, fill="white"), disc(0, 0, 0.33))
CRESCENT: Parts = (
    joined(
        ellipse(0, 0, 0.9, 0.9, 0.25 * np.pi, 1.75 * np.pi),
        ellipse(0.28, 0, 0.7, 0.67, 1.72 * np.pi, 0.28 * np.pi),
        ellipse(0, 0, 0.9, 0.9, 0.25 * np.pi, 1.75 * np.pi)[:1],
    ),
)
DOTS: Parts = tuple(disc(x, y, 0.2) for x in (-0.7, 0, 0.7) for y in (-0.7, 0, 0.7))


def _heart() -> Part:
    t = np.linspace(0, FULL_TURN, 40)
    x = 0.92 * np.sin(t) ** 3
    y = 0.8 * np.cos(t) - 0.32 * np.cos(2 * t) - 0.12 * np.cos(3 * t) - 0.06 * np.cos(4 * t)
    return Part(np.stack([x, -y], axis=1), "main")


HEART: Parts = (_heart(),)


def star(vary: Generator) -> Parts:
    corners = regular(10, 0.95)
    corners[1::2] *= vary.uniform(0.38, 0.5)
    return (Part(along_edges(corners), "main"),)


def spiral(vary: Generator) -> Parts:
    t = np.linspace(0, FULL_TURN * vary.uniform(2.4, 3.0), 70)
    radius = 0.06 + 0.9 * t / t[-1]
    return (Part(np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1), None),)


def zigzag(vary: Generator) -> Parts:
    n_corners = int(vary.integers(5, 8))
    x = np.linspace(-1, 1, n_corners)
    y = np.where(np.arange(n_corners) % 2, 0.38, -0.38)
    return (Part(along_edges(np.stack([x, y], axis=1), closed=False), None),)


def wave(vary: Generator) -> Parts:
    x = np.linspace(-1, 1, 44)
    y = 0.32 * np.sin(x * np.pi * vary.uniform(2, 3))
    return (Part(np.stack([x, y], axis=1), None),)


def grid(vary: Generator) -> Parts:
    places = np.linspace(-0.85, 0.85, int(vary.integers(4, 6)))
    rows = tuple(line((-0.9, v), (0.9, v)) for v in places)
    return rows + tuple(line((v, -0.9), (v, 0.9)) for v in places)


def cross(vary: Generator) -> Parts:
    w = vary.uniform(0.24, 0.34)
    upper = ((-w, -0.9), (w, -0.9), (w, -w), (0.9, -w), (0.9, w), (w, w))
    lower = ((w, 0.9), (-w, 0.9), (-w, w), (-0.9, w), (-0.9, -w), (-w, -w))
    return (polygon(*upper, *lower),)


def arrow(vary: Generator) -> Parts:
    w = vary.uniform(0.16, 0.26)
    head = ((0.2, -w), (0.2, -0.6), (0.95, 0), (0.2, 0.6), (0.2, w))
    return (polygon((-0.95, -w), *head, (-0.95, w)),)
