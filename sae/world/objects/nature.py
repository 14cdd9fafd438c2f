"""Living things and landscape. A constant never varies; a function draws from `vary`."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from sae.world.objects.shapes import (
    FULL_TURN,
    Part,
    Parts,
    arc,
    around,
    blob,
    curve,
    disc,
    ellipse,
    joined,
    line,
    polygon,
    ray,
    smooth,
    tapered,
)


def _crown_of_leaves() -> Part:
    radius = np.where(np.arange(10) % 2, 1.1, 0.86)[:, None]
    return Part(smooth(around(10) * radius * [0.72, 0.58] + [0, -0.35], closed=True), "main")


TREE: Parts = (
    polygon((-0.13, 0.95), (-0.1, 0.1), (0.1, 0.1), (0.13, 0.95), fill="wood"),
    _crown_of_leaves(),
)
PINE: Parts = (
    polygon((-0.12, 0.95), (-0.12, 0.6), (0.12, 0.6), (0.12, 0.95), fill="wood"),
    polygon((-0.72, 0.65), (0, -0.1), (0.72, 0.65)),
    polygon((-0.58, 0.2), (0, -0.5), (0.58, 0.2)),
    polygon((-0.42, -0.25), (0, -0.95), (0.42, -0.25)),
)
FISH: Parts = (
    polygon((0.45, 0), (0.98, -0.45), (0.98, 0.45), fill="second"),
    blob((-0.95, 0), (-0.5, -0.42), (0.1, -0.42), (0.6, 0), (0.1, 0.42), (-0.5, 0.42)),
    disc(-0.58, -0.1, 0.09, fill="dark"),
    arc(-0.55, 0, 0.35, 0.36, -0.9, 0.9),
)
CAT: Parts = (
    polygon((-0.75, -0.9), (-0.15, -0.55), (-0.7, -0.05)),
    polygon((0.75, -0.9), (0.15, -0.55), (0.7, -0.05)),
    disc(0, 0.12, 0.78, 0.7),
    disc(-0.3, 0, 0.1, 0.13, fill="dark"),
    disc(0.3, 0, 0.1, 0.13, fill="dark"),
    polygon((-0.08, 0.25), (0.08, 0.25), (0, 0.36), fill="dark"),
    line((-0.2, 0.34), (-0.98, 0.22)),
    line((-0.2, 0.42), (-0.95, 0.52)),
    line((0.2, 0.34), (0.98, 0.22)),
    line((0.2, 0.42), (0.95, 0.52)),
)
BIRD: Parts = (
    polygon((0.45, 0.1), (0.98, -0.12), (0.92, 0.3), fill="second"),
    blob((-0.5, -0.1), (-0.1, -0.3), (0.45, 0), (0.55, 0.22), (0.1, 0.55), (-0.4, 0.4)),
    disc(-0.5, -0.28, 0.3),
    polygon((-0.76, -0.34), (-1, -0.2), (-0.76, -0.16), fill="orange"),
    disc(-0.55, -0.34, 0.07, fill="dark"),
    curve((-0.1, 0.05), (0.2, 0.3), (0.5, 0.1)),
    line((-0.05, 0.52), (-0.1, 0.9)),
    line((0.15, 0.52), (0.15, 0.9)),
)
MUSHROOM: Parts = (
    tapered(
        (-0.2, 0), (-0.24, 0.5), (-0.32, 0.9), (0.32, 0.9), (0.24, 0.5), (0.2, 0), fill="white"
    ),
    joined(ellipse(0, 0.05, 0.92, 0.9, np.pi, FULL_TURN), [(-0.92, 0.05)]),
    disc(-0.38, -0.3, 0.14, fill="white"),
    disc(0.15, -0.52, 0.14, fill="white"),
    disc(0.5, -0.2, 0.12, fill="white"),
)
BUTTERFLY: Parts = (
    blob((-0.05, -0.1), (-0.5, -0.85), (-0.95, -0.6), (-0.75, -0.05)),
    blob((0.05, -0.1), (0.5, -0.85), (0.95, -0.6), (0.75, -0.05)),
    blob((-0.05, 0.05), (-0.7, 0.1), (-0.7, 0.65), (-0.25, 0.7), fill="second"),
    blob((0.05, 0.05), (0.7, 0.1), (0.7, 0.65), (0.25, 0.7), fill="second"),
    disc(0, 0.05, 0.08, 0.5, fill="dark"),
    curve((0, -0.45), (-0.1, -0.75), (-0.25, -0.9)),
    curve((0, -0.45), (0.1, -0.75), (0.25, -0.9)),
)
CLOUD: Parts = (
    joined(
        ellipse(-0.5, 0.12, 0.42, 0.36, 0.5 * np.pi, 1.35 * np.pi),
        ellipse(-0.12, -0.22, 0.44, 0.42, 1.05 * np.pi, 1.75 * np.pi),
        ellipse(0.42, -0.02, 0.48, 0.44, 1.35 * np.pi, 2.5 * np.pi),
        [(-0.5, 0.48)],
    ),
)
MOUNTAIN: Parts = (
    polygon((-0.98, 0.75), (-0.45, -0.25), (0.1, 0.75), fill="second"),
    polygon((-0.45, 0.75), (0.25, -0.8), (0.98, 0.75)),
    polygon(
        (0.02, -0.3), (0.25, -0.8), (0.5, -0.3), (0.36, -0.4), (0.25, -0.22), (0.13, -0.4),
        fill="white",
    ),
)  # fmt: skip
SNOWMAN: Parts = (
    disc(0, 0.5, 0.48, 0.45),
    disc(0, -0.12, 0.34, 0.3),
    disc(0, -0.56, 0.24, 0.22),
    polygon((-0.2, -0.72), (0.2, -0.72), (0.2, -0.98), (-0.2, -0.98), fill="dark"),
    disc(-0.08, -0.6, 0.04, fill="dark"),
    disc(0.08, -0.6, 0.04, fill="dark"),
    polygon((0, -0.53), (0.26, -0.48), (0, -0.45), fill="orange"),
    line((-0.32, -0.15), (-0.85, -0.4)),
    line((0.32, -0.15), (0.85, -0.4)),
)
APPLE: Parts = (
    blob(
        (0, -0.4), (0.45, -0.58), (0.82, -0.1), (0.5, 0.75),
        (0, 0.72), (-0.5, 0.75), (-0.82, -0.1), (-0.45, -0.58),
    ),
    line((0, -0.42), (0.06, -0.85)),
    blob((0.06, -0.65), (0.3, -0.95), (0.55, -0.85), (0.35, -0.65), fill="leaf"),
)  # fmt: skip
LEAF: Parts = (
    blob((0, -0.95), (0.5, -0.3), (0.42, 0.4), (0, 0.7), (-0.42, 0.4), (-0.5, -0.3)),
    line((0, -0.7), (0, 1)),
    line((0, -0.1), (0.3, -0.35)),
    line((0, -0.1), (-0.3, -0.35)),
    line((0, 0.3), (0.3, 0.05)),
    line((0, 0.3), (-0.3, 0.05)),
)


def _shell_line() -> Part:
    t = np.linspace(0, FULL_TURN * 2.2, 44)
    radius = 0.05 + 0.5 * t / t[-1]
    return Part(np.stack([0.12 + radius * np.cos(t), -0.08 + radius * np.sin(t)], axis=1), None)


SNAIL: Parts = (
    blob(
        (-0.95, 0.65), (-0.85, 0.1), (-0.68, 0.1), (-0.6, 0.4), (0.6, 0.42), (0.98, 0.7), (0, 0.72),
        fill="second",
    ),
    disc(0.12, -0.08, 0.58),
    _shell_line(),
    line((-0.82, 0.12), (-0.95, -0.25)),
    line((-0.72, 0.1), (-0.68, -0.28)),
)  # fmt: skip
CACTUS: Parts = (
    tapered((-0.2, 0.9), (-0.22, -0.6), (0, -0.92), (0.22, -0.6), (0.2, 0.9)),
    tapered((-0.2, 0.3), (-0.62, 0.25), (-0.7, -0.3), (-0.5, -0.32), (-0.45, 0.02), (-0.2, 0.02)),
    tapered((0.2, 0.1), (0.62, 0.05), (0.72, -0.5), (0.5, -0.52), (0.46, -0.2), (0.2, -0.18)),
    line((0, -0.6), (0, 0.7)),
)
EYE: Parts = (
    blob(
        (-0.96, 0), (-0.5, -0.4), (0, -0.54), (0.5, -0.4),
        (0.96, 0), (0.5, 0.4), (0, 0.54), (-0.5, 0.4),
        fill="white",
    ),
    disc(0, 0, 0.42),
    disc(0, 0, 0.17, fill="dark"),
    line((-0.6, -0.5), (-0.75, -0.75)),
    line((0, -0.62), (0, -0.9)),
    line((0.6, -0.5), (0.75, -0.75)),
)  # fmt: skip


def face(vary: Generator) -> Parts:
    return (
        disc(0, 0, 0.9),
        disc(-0.32, -0.25, 0.11, fill="dark"),
        disc(0.32, -0.25, 0.11, fill="dark"),
        arc(0, 0.12, 0.48, vary.uniform(0.25, 0.45), 0.15 * np.pi, 0.85 * np.pi),
        line((0, -0.05), (-0.06, 0.14), (0.05, 0.16)),
    )


def flower(vary: Generator) -> Parts:
    stem = line((0, 0.2), (0.04, 0.98))
    leaf = blob((0.02, 0.75), (0.35, 0.5), (0.5, 0.55), (0.3, 0.78), fill="leaf")
    centres = 0.46 * around(int(vary.integers(5, 8))) + [0, -0.3]
    petals = tuple(disc(x, y, 0.25) for x, y in centres)
    return (stem, leaf, *petals, disc(0, -0.3, 0.25, fill="gold"))


def sun(vary: Generator) -> Parts:
    rays = tuple(ray(unit, 0.6, 0.96) for unit in around(int(vary.integers(8, 13))))
    return (disc(0, 0, 0.48), *rays)
