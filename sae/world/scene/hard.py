"""A seed -> a scene of the hard tier: objects differ in all attributes, are small or covered.

Each object has a pattern, a turn, a size and (in a photo) a colour of its own. Some objects are
common and most are rare, so that conjunctions ("red striped", "small circle on the left") come in
.01% to 5% of the pictures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from sae.world.objects.catalogue import DRAWN
from sae.world.scene.concepts import COLOURS, COMMON, OBJECTS
from sae.world.scene.random import Stream, pick, stream
from sae.world.scene.scene import (
    HIDDEN_ON,
    PATTERNS,
    PHOTO_BACKGROUNDS,
    Domain,
    Orientation,
    Placed,
    Scene,
    Size,
    choose_pen,
    position_at,
)

COMMON_WEIGHT = 4
"""How much oftener a common object is drawn than another."""
SCALES: dict[Size, tuple[float, float]] = {
    "small": (0.17, 0.25),
    "medium": (0.40, 0.48),
    "large": (0.72, 0.82),
}
"""Half the box of an object, where 1 is half the picture: a small one is smaller than elsewhere."""
COVERED_SHARE = 0.35
"""How often one of several objects stands in front of another."""
SIDES = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
OFF_MIDDLE: dict[Size, float] = {"small": 0.6, "medium": 0.45, "large": 0.0}
"""How far from the middle an object aside stands."""


class _Spot(NamedTuple):
    size: Size
    scale: float
    centre: tuple[float, float]


def sample_hard(seed: int, domain: Domain | None = None) -> Scene:
    """The hard scene of a seed, in the domain asked for or drawn; other than the easy one of it."""
    if domain is None:
        domain = "sketch" if stream(seed, Stream.DOMAIN).random() < 0.5 else "photo"
    what = stream(seed, Stream.WHAT, 1)
    weights = np.array([COMMON_WEIGHT if name in COMMON else 1.0 for name in OBJECTS])
    n_objects = int(what.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    names = what.choice(OBJECTS, n_objects, replace=False, p=weights / weights.sum()).tolist()
    spots = _spots(stream(seed, Stream.LAYOUT, 1), n_objects)
    objects = tuple(_place(name, spot, what) for name, spot in zip(names, spots, strict=True))
    backdrop = stream(seed, Stream.BACKGROUND)
    if domain == "sketch":
        has_pattern = "".join(placed.pattern for placed in objects)
        fillable = all(DRAWN[name].fillable for name in names)
        stroke, width, filled = choose_pen(stream(seed, Stream.STROKE), has_pattern, fillable)
        if any(
            placed.size == "small" for placed in objects
        ):  # of dashes or wide lines little is left
            stroke, width = "solid", "thin" if width == "thin" else "medium"
        paper = "lined paper" if backdrop.random() < 0.13 else "blank"
        pen = (stroke, width, filled)
        return Scene(seed, domain, objects, "", "upright", "", *pen, paper)
    background = pick(backdrop, PHOTO_BACKGROUNDS)
    seen = [colour for colour in COLOURS if colour not in HIDDEN_ON.get(background, ())]
    colours = stream(seed, Stream.COLOUR).permutation(seen)[:n_objects].tolist()
    painted = [replace(o, colour=colour) for o, colour in zip(objects, colours, strict=True)]
    return Scene(seed, domain, tuple(painted), "", "upright", "", background=background)


def _place(name: str, spot: _Spot, rng: Generator) -> Placed:
    """One object with a turn and a pattern of its own, where they show on it."""
    turns, patterned, pattern = rng.random(), rng.random() < 0.6, pick(rng, PATTERNS)
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.44, 0.66)
    orientation: Orientation = "upright"
    if turns < 0.15 and DRAWN[name].tiltable:
        orientation = "tilted"
    elif 0.15 <= turns < 0.3 and DRAWN[name].flippable:
        orientation = "upside down"
    turn = {"upright": 0.0, "upside down": np.pi, "tilted": side}[orientation]
    return Placed(
        name=name,
        centre=spot.centre,
        scale=spot.scale,
        angle=float(turn + rng.normal(0, 0.05)),
        aspect=float(np.exp(rng.normal(0, 0.07))),
        size=spot.size,
        position=position_at(*spot.centre),
        colour="",
        pattern=pattern if patterned and DRAWN[name].patterned else "",
        orientation=orientation,
    )


def _spots(rng: Generator, n: int) -> list[_Spot]:
    """Sizes and places. Of several objects one at most is medium; the others are small, aside."""
    first: Size = pick(rng, ("small", "medium", "large"), (0.5, 0.3, 0.2))
    first = "medium" if n > 1 and first == "large" else first
    others: list[Size] = ["small"] * (n - 1)
    sizes = [first, *others]
    scales = [float(rng.uniform(*SCALES[size])) for size in sizes]
    in_middle = rng.random() < (1 if first == "large" else 0.3)
    sides = np.array(SIDES)[rng.permutation(len(SIDES))]
    places = np.stack([np.zeros(2), *sides[: n - 1]]) if in_middle else sides[:n]
    reach = OFF_MIDDLE[first] if not in_middle else 0.0
    centres = places * np.array([reach, *[OFF_MIDDLE["small"]] * (n - 1)])[:, None]
    centres += rng.uniform(-0.06, 0.06, (n, 2))
    if n > 1 and rng.random() < COVERED_SHARE:
        # Off one side a small object's neighbour stands beside it, a medium one's inwards.
        towards = places[1] if in_middle else places[0][::-1] if first == "small" else -places[0]
        centres[1] = centres[0] + rng.uniform(1.1, 1.35) * max(scales[:2]) * towards
    spots = zip(sizes, scales, centres.tolist(), strict=True)
    return [_Spot(size, scale, (x, y)) for size, scale, (x, y) in spots]
