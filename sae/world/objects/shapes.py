"""Geometry of the drawn world: objects are tuples of parts in the box [-1, 1] x [-1, 1], y down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(n, 2): x to the right, y down."""
Fill = Literal["main", "second", "white", "dark", "wood", "leaf", "gold", "orange"]
"""What a part is filled with: the object's own colour, a darker one of it, or a fixed colour."""

FULL_TURN = 2 * np.pi


class Part(NamedTuple):
    """One outline of an object; later parts hide earlier ones."""

    points: Points  # (n, 2)
    fill: Fill | None  # None: a bare line


Parts = tuple[Part, ...]


def polygon(*corners: tuple[float, float], fill: Fill = "main") -> Part:
    return Part(along_edges(np.array(corners)), fill)


def line(*corners: tuple[float, float]) -> Part:
    return Part(along_edges(np.array(corners), closed=False), None)


def disc(x: float, y: float, rx: float, ry: float | None = None, fill: Fill = "main") -> Part:
    return Part(ellipse(x, y, rx, ry), fill)


def arc(
    x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = FULL_TURN
) -> Part:
    return Part(ellipse(x, y, rx, ry, start, stop), None)


def curve(*points: tuple[float, float]) -> Part:
    """A bare line that passes smoothly through the points."""
    return Part(smooth(np.array(points)), None)


def blob(*points: tuple[float, float], fill: Fill = "main") -> Part:
    """A closed outline that passes smoothly through the points."""
    return Part(smooth(np.array(points), closed=True), fill)


def tapered(*points: tuple[float, float], fill: Fill = "main") -> Part:
    """A smooth outline whose two ends are joined by a straight edge."""
    return Part(smooth(np.array(points)), fill)


def ellipse(
    x: float,
    y: float,
    rx: float,
    ry: float | None = None,
    start: float = 0.0,
    stop: float = FULL_TURN,
) -> Points:
    """Points of an ellipse from angle `start` to `stop` (radians, clockwise on screen)."""
    ry = rx if ry is None else ry
    turn = abs(stop - start) / FULL_TURN
    n_points = max(8, int(34 * turn * max(0.5, rx, ry) + 6))
    t = np.linspace(start, stop, n_points)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], axis=1)


def regular(
    n_corners: int,
    radius: float,
    first: float = -np.pi / 2,
    middle: tuple[float, float] = (0, 0),
) -> Points:
    """Corners of a regular polygon; `first` is the angle of the first corner."""
    t = first + FULL_TURN * np.arange(n_corners) / n_corners
    corners: Points = radius * np.stack([np.cos(t), np.sin(t)], axis=1) + np.array(middle)
    return corners


def around(n_rays: int) -> Points:
    """`n_rays` unit vectors, evenly spread from the right and clockwise."""
    return regular(n_rays, 1.0, first=0.0)


def ray(direction: Points, start: float, stop: float) -> Part:
    """A straight line from radius `start` to radius `stop` along a unit vector."""
    return Part(along_edges(np.stack([direction * start, direction * stop]), closed=False), None)


def along_edges(corners: Points, closed: bool = True, step: float = 0.22) -> Points:
    """The corners with points between them, so that a wobble can bend long straight edges."""
    path = np.vstack([corners, corners[:1]]) if closed else corners
    edges = np.diff(path, axis=0)
    n_steps = np.maximum(1, np.hypot(edges[:, 0], edges[:, 1]) // step).astype(int)
    first = np.repeat(np.cumsum(n_steps) - n_steps, n_steps)
    t = (np.arange(n_steps.sum()) - first) / np.repeat(n_steps, n_steps)
    inner = np.repeat(path[:-1], n_steps, axis=0) + t[:, None] * np.repeat(edges, n_steps, axis=0)
    return np.vstack([inner, path[-1:]])


def smooth(points: Points, closed: bool = False, n_between: int = 5) -> Points:
    """Catmull-Rom spline through the points, `n_between` samples from each point to the next."""
    if closed:
        padded = np.vstack([points[-1:], points, points[:2]])
    else:
        before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
        padded = np.vstack([before, points, after])
    n_spans = len(padded) - 3
    t = np.linspace(0, 1, n_between, endpoint=False)[None, :, None]
    a, b, c, d = (padded[i : i + n_spans, None] for i in range(4))
    bend = (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    samples = (0.5 * (2 * b + (c - a) * t + bend)).reshape(-1, 2)
    return np.vstack([samples, samples[:1] if closed else points[-1:]])


def joined(*paths: Points | Sequence[tuple[float, float]], fill: Fill = "main") -> Part:
    """One outline made of several paths, end to start."""
    return Part(np.vstack([np.asarray(path, dtype=np.float64) for path in paths]), fill)
