"""Things that people make. A constant never varies; a function draws from `vary`."""

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
)

CUP: Parts = (
    arc(0.62, 0.05, 0.34, 0.36, -0.55 * np.pi, 0.55 * np.pi),
    polygon((-0.75, -0.6), (0.55, -0.6), (0.42, 0.75), (-0.6, 0.75)),
    disc(-0.1, -0.6, 0.65, 0.16, fill="second"),
)
KEY: Parts = (
    polygon(
        (-0.1, -0.09), (0.95, -0.09), (0.95, 0.4), (0.78, 0.4), (0.78, 0.1),
        (0.62, 0.1), (0.62, 0.32), (0.46, 0.32), (0.46, 0.1), (-0.1, 0.1),
    ),
    disc(-0.5, 0, 0.44),
    disc(-0.5, 0, 0.2, fill="white"),
)  # fmt: skip
UMBRELLA: Parts = (
    line((0, -0.1), (0, 0.72)),
    arc(-0.16, 0.72, 0.16, 0.2, 0, np.pi),
    joined(
        ellipse(0, -0.05, 0.95, 0.82, np.pi, FULL_TURN),
        *(ellipse(x, -0.05, 0.158, 0.11, 0, -np.pi) for x in (0.79, 0.475, 0.16)),
        *(ellipse(x, -0.05, 0.158, 0.11, 0, -np.pi) for x in (-0.16, -0.475, -0.79)),
    ),
)
BOAT: Parts = (
    line((0, 0.35), (0, -0.95)),
    polygon((0.06, -0.85), (0.06, 0.25), (0.78, 0.25), fill="white"),
    polygon((-0.06, -0.6), (-0.06, 0.25), (-0.6, 0.25), fill="second"),
    polygon((-0.9, 0.38), (0.9, 0.38), (0.58, 0.85), (-0.6, 0.85)),
)
CAR: Parts = (
    blob(
        (-0.95, 0.3), (-0.9, -0.02), (-0.5, -0.08), (-0.3, -0.5), (0.35, -0.5),
        (0.58, -0.08), (0.95, 0.05), (0.95, 0.35), (0, 0.38),
    ),
    polygon((-0.36, -0.08), (-0.2, -0.36), (0.02, -0.36), (0.02, -0.08), fill="white"),
    polygon((0.12, -0.08), (0.12, -0.36), (0.3, -0.36), (0.44, -0.08), fill="white"),
    disc(-0.5, 0.38, 0.24, fill="dark"),
    disc(0.52, 0.38, 0.24, fill="dark"),
    disc(-0.5, 0.38, 0.09, fill="white"),
    disc(0.52, 0.38, 0.09, fill="white"),
)  # fmt: skip
CHAIR: Parts = (
    polygon((-0.5, -0.95), (-0.36, -0.95), (-0.36, 0.95), (-0.5, 0.95)),
    polygon((-0.5, 0.05), (0.55, 0.05), (0.55, 0.2), (-0.5, 0.2)),
    polygon((0.41, 0.2), (0.55, 0.2), (0.55, 0.95), (0.41, 0.95)),
    polygon((-0.36, -0.85), (-0.22, -0.85), (-0.22, 0.05), (-0.36, 0.05), fill="second"),
)
TABLE: Parts = (
    polygon((-0.95, -0.4), (0.95, -0.4), (0.95, -0.2), (-0.95, -0.2)),
    polygon((-0.8, -0.2), (-0.64, -0.2), (-0.64, 0.8), (-0.8, 0.8), fill="second"),
    polygon((0.64, -0.2), (0.8, -0.2), (0.8, 0.8), (0.64, 0.8), fill="second"),
)
LAMP: Parts = (
    polygon((-0.35, -0.9), (0.35, -0.9), (0.7, -0.05), (-0.7, -0.05)),
    polygon((-0.06, -0.05), (0.06, -0.05), (0.06, 0.75), (-0.06, 0.75), fill="dark"),
    disc(0, 0.82, 0.42, 0.12, fill="second"),
)
BOTTLE: Parts = (
    polygon(
        (-0.14, -0.95), (0.14, -0.95), (0.14, -0.4), (0.38, -0.12),
        (0.38, 0.95), (-0.38, 0.95), (-0.38, -0.12), (-0.14, -0.4),
    ),
    polygon((-0.38, 0.15), (0.38, 0.15), (0.38, 0.6), (-0.38, 0.6), fill="white"),
)  # fmt: skip
GLASSES: Parts = (
    disc(-0.5, 0, 0.4),
    disc(-0.5, 0, 0.3, fill="white"),
    disc(0.5, 0, 0.4),
    disc(0.5, 0, 0.3, fill="white"),
    arc(0, 0, 0.12, 0.12, np.pi, FULL_TURN),
    line((-0.88, -0.1), (-1, -0.3)),
    line((0.88, -0.1), (1, -0.3)),
)
HAMMER: Parts = (
    polygon((-0.1, -0.4), (0.1, -0.4), (0.12, 0.95), (-0.12, 0.95), fill="wood"),
    polygon((-0.65, -0.85), (0.5, -0.85), (0.8, -0.6), (0.5, -0.4), (-0.65, -0.4)),
)
SWORD: Parts = (
    polygon((-0.1, 0.4), (-0.1, -0.7), (0, -0.98), (0.1, -0.7), (0.1, 0.4)),
    polygon((-0.42, 0.4), (0.42, 0.4), (0.42, 0.53), (-0.42, 0.53), fill="second"),
    polygon((-0.07, 0.53), (0.07, 0.53), (0.07, 0.85), (-0.07, 0.85), fill="wood"),
    disc(0, 0.89, 0.1, fill="second"),
)
ENVELOPE: Parts = (
    polygon((-0.92, -0.6), (0.92, -0.6), (0.92, 0.6), (-0.92, 0.6)),
    line((-0.92, -0.6), (0, 0.12), (0.92, -0.6)),
)
BALLOON: Parts = (
    curve((0, 0.4), (0.08, 0.62), (-0.08, 0.8), (0.05, 1)),
    blob((0, 0.38), (-0.5, 0.05), (-0.58, -0.45), (0, -0.95), (0.58, -0.45), (0.5, 0.05)),
    polygon((-0.09, 0.48), (0, 0.36), (0.09, 0.48)),
)
ROCKET: Parts = (
    polygon((-0.3, 0.3), (-0.7, 0.75), (-0.28, 0.7), fill="second"),
    polygon((0.3, 0.3), (0.7, 0.75), (0.28, 0.7), fill="second"),
    polygon((-0.2, 0.7), (0, 1), (0.2, 0.7), fill="orange"),
    blob(
        (0, -0.98), (0.33, -0.4), (0.32, 0.4), (0.24, 0.7),
        (-0.24, 0.7), (-0.32, 0.4), (-0.33, -0.4),
    ),
    disc(0, -0.2, 0.15, fill="white"),
)  # fmt: skip
CROWN: Parts = (
    polygon(
        (-0.85, 0.6), (-0.95, -0.5), (-0.45, 0.05), (0, -0.7),
        (0.45, 0.05), (0.95, -0.5), (0.85, 0.6),
    ),
    line((-0.85, 0.38), (0.85, 0.38)),
    disc(-0.95, -0.55, 0.09, fill="second"),
    disc(0, -0.76, 0.09, fill="second"),
    disc(0.95, -0.55, 0.09, fill="second"),
)  # fmt: skip
ANCHOR: Parts = (
    arc(0, 0.1, 0.72, 0.75, 0.05 * np.pi, 0.95 * np.pi),
    line((0, -0.55), (0, 0.85)),
    line((-0.38, -0.35), (0.38, -0.35)),
    arc(0, -0.74, 0.2, 0.2),
    polygon((0.5, 0.35), (0.72, 0.05), (0.92, 0.38)),
    polygon((-0.5, 0.35), (-0.72, 0.05), (-0.92, 0.38)),
)
CANDLE: Parts = (
    polygon((-0.24, -0.2), (0.24, -0.2), (0.24, 0.75), (-0.24, 0.75)),
    disc(0, 0.82, 0.58, 0.13, fill="second"),
    line((0, -0.2), (0, -0.4)),
    blob((0, -0.4), (-0.16, -0.6), (0, -0.98), (0.16, -0.6), fill="gold"),
)
FLAG: Parts = (
    line((-0.6, -0.95), (-0.6, 0.98)),
    blob(
        (-0.58, -0.88), (-0.1, -0.98), (0.3, -0.78), (0.85, -0.88),
        (0.82, -0.1), (0.3, 0), (-0.1, -0.2), (-0.58, -0.1),
    ),
)  # fmt: skip
BELL: Parts = (
    disc(0, 0.72, 0.16, fill="dark"),
    blob(
        (-0.85, 0.62), (-0.55, 0.3), (-0.48, -0.4), (0, -0.85),
        (0.48, -0.4), (0.55, 0.3), (0.85, 0.62),
    ),
    arc(0, -0.88, 0.1, 0.1, np.pi, FULL_TURN),
)  # fmt: skip
KITE: Parts = (
    polygon((0, -0.95), (0.5, -0.3), (0, 0.45), (-0.5, -0.3)),
    line((0, -0.95), (0, 0.45)),
    line((-0.5, -0.3), (0.5, -0.3)),
    curve((0, 0.45), (0.2, 0.62), (0, 0.78), (0.25, 0.98)),
)


def house(vary: Generator) -> Parts:
    eaves = vary.uniform(-0.2, 0.05)
    return (
        polygon((-0.7, eaves), (0.7, eaves), (0.7, 0.9), (-0.7, 0.9)),
        polygon((-0.92, eaves), (0, -0.92), (0.92, eaves), fill="second"),
        polygon((-0.15, 0.9), (-0.15, 0.35), (0.2, 0.35), (0.2, 0.9), fill="dark"),
        polygon((0.34, 0.2), (0.58, 0.2), (0.58, 0.46), (0.34, 0.46), fill="white"),
    )


def ladder(vary: Generator) -> Parts:
    heights = np.linspace(-0.7, 0.7, int(vary.integers(4, 6)))
    rungs = tuple(line((-0.42, y), (0.42, y)) for y in heights)
    return (line((-0.42, -0.95), (-0.42, 0.95)), line((0.42, -0.95), (0.42, 0.95)), *rungs)


def wheel(vary: Generator) -> Parts:
    spokes = tuple(ray(unit, 0.12, 0.74) for unit in around(int(vary.integers(6, 9))))
    return (disc(0, 0, 0.95), disc(0, 0, 0.74, fill="white"), *spokes, disc(0, 0, 0.15))


def clock(vary: Generator) -> Parts:
    hands = tuple(_hand(vary.uniform(0, FULL_TURN), length) for length in (0.58, 0.38))
    ticks = tuple(ray(unit, 0.6, 0.72) for unit in around(4))
    return (disc(0, 0, 0.92), disc(0, 0, 0.74, fill="white"), *hands, *ticks)


def _hand(angle: float, length: float) -> Part:
    return line((0, 0), (length * np.cos(angle), length * np.sin(angle)))
