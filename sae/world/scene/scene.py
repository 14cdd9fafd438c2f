"""A seed -> a scene: which objects, where, and how they look. No pixel is drawn here.

Every kind of choice has its own random stream, so one seed gives the same objects, layout, pattern
and orientation at any size and in both domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from sae.world.objects.catalogue import DRAWN
from sae.world.scene.concepts import COLOURS, CONJUNCTIONS, OBJECTS
from sae.world.scene.random import Stream, pick, stream

Domain = Literal["sketch", "photo"]
Size = Literal["small", "medium", "large"]
Position = Literal["left", "right", "top", "bottom", ""]
Orientation = Literal["upright", "tilted", "upside down"]

PATTERNS = ("striped", "spotted", "checkered")
PHOTO_BACKGROUNDS = ("plain", "grass", "sky", "sand", "water", "night", "brick", "wood", "snow")
COUNT_NAMES = {1: "one", 2: "two", 3: "three", 4: "four"}
CLEARLY_ASIDE = 0.35
"""An object has a position when its centre is further from the middle than this; 1 is the edge."""
HIDDEN_ON: dict[str, tuple[str, ...]] = {
    "grass": ("green",),
    "sky": ("blue", "white"),
    "sand": ("yellow", "orange", "brown"),
    "water": ("blue",),
    "night": ("black", "purple", "blue"),
    "brick": ("red", "brown"),
    "wood": ("brown", "orange"),
    "snow": ("white",),
}
"""Colours that a background would swallow."""

SCALES: dict[Size, tuple[float, float]] = {
    "small": (0.30, 0.37),
    "medium": (0.46, 0.58),
    "large": (0.74, 0.85),
}
"""Half the box of a single object, where 1 is half the picture."""
ASIDE_SHARE: dict[Size, float] = {"small": 0.8, "medium": 0.5, "large": 0.0}
"""How often a single object stands aside."""


@dataclass(frozen=True)
class Placed:
    """One object of a scene, and where it stands."""

    name: str
    centre: tuple[float, float]
    """(x, y), x to the right and y down, the picture being [-1, 1] x [-1, 1]."""
    scale: float
    """Half the side of its box, where 1 is half the picture."""
    angle: float
    """Clockwise turn in radians."""
    aspect: float
    """Widened by this and flattened by as much."""
    size: Size
    position: Position
    colour: str
    """A concept of kind colour in a photo, "" in a sketch."""
    pattern: str = ""
    """Its own, where the scene has none for all."""
    orientation: Orientation | Literal[""] = ""
    """Its own; "": the scene's."""


@dataclass(frozen=True)
class Scene:
    """All that there is to know of one picture; `draw` and `caption` read nothing else."""

    seed: int
    domain: Domain
    objects: tuple[Placed, ...]
    relation: Literal["next to", "above", ""]
    """How the first of two different objects stands to the second."""
    orientation: Orientation
    pattern: str
    """striped, spotted, checkered or ""; it covers every object."""
    stroke: Literal["solid", "dashed", "dotted"] = "solid"
    width: Literal["thin", "medium", "thick"] = "medium"
    filled: bool = False
    background: str = "blank"
    """blank or "lined paper" in a sketch, one of `PHOTO_BACKGROUNDS` in a photo."""

    @property
    def names(self) -> tuple[str, ...]:
        """The different objects: one name, or two for a pair."""
        return tuple(dict.fromkeys(placed.name for placed in self.objects))

    @property
    def label(self) -> str:
        """The class of the picture: its first object."""
        return self.objects[0].name

    def pattern_of(self, placed: Placed) -> str:
        """striped, spotted, checkered or ""."""
        return self.pattern or placed.pattern

    def orientation_of(self, placed: Placed) -> Orientation:
        """How one object is turned."""
        return placed.orientation or self.orientation

    def attributes_of(self, placed: Placed) -> frozenset[str]:
        """Names of the concepts that are true of one object, its kind among them."""
        found = {placed.name, placed.size, placed.position, placed.colour}
        found |= {self.pattern_of(placed), self.orientation_of(placed)}
        return frozenset(found - {"", "upright", "medium"})


def sample(seed: int, domain: Domain | None = None) -> Scene:
    """The scene of a seed (an integer from 0 up, of any size), in the domain asked for or drawn."""
    if domain is None:
        domain = "sketch" if stream(seed, Stream.DOMAIN).random() < 0.5 else "photo"
    what = stream(seed, Stream.WHAT)
    names = _names(what)
    drawn = [DRAWN[name] for name in names]
    orientation = _orientation(what, names)
    wants_pattern, pattern = what.random() < 0.35, pick(what, PATTERNS)
    pattern = pattern if wants_pattern and all(d.patterned for d in drawn) else ""
    objects, relation = _layout(stream(seed, Stream.LAYOUT), names, orientation)
    if domain == "sketch":
        fillable = all(d.fillable for d in drawn)
        stroke, width, filled = choose_pen(stream(seed, Stream.STROKE), pattern, fillable)
        background = "lined paper" if stream(seed, Stream.BACKGROUND).random() < 0.13 else "blank"
        return Scene(
            seed, domain, objects, relation, orientation, pattern, stroke, width, filled, background
        )
    backdrop = stream(seed, Stream.BACKGROUND)
    background = "plain" if backdrop.random() < 0.28 else pick(backdrop, PHOTO_BACKGROUNDS[1:])
    painted = _coloured(stream(seed, Stream.COLOUR), objects, background)
    return Scene(seed, domain, painted, relation, orientation, pattern, background=background)


def concepts_of(scene: Scene) -> frozenset[str]:
    """Names of all planted concepts, without conjunctions, that are true of the scene.

    "two" is true of any two objects, also of two different ones ("pair"). What can be said of an
    object is true when it is of some object.
    """
    found = {scene.domain, scene.background, scene.stroke, scene.width}
    found |= {"filled" if scene.filled else "", COUNT_NAMES[len(scene.objects)]}
    found.add("pair" if len(scene.names) == 2 else "")
    for placed in scene.objects:
        found |= scene.attributes_of(placed)
    return frozenset(found - {"", "one", "medium", "solid", "blank"})


def conjunctions_of(scene: Scene) -> frozenset[str]:
    """Names of the conjunctions of which one object of the scene has all parts."""
    objects = [scene.attributes_of(placed) for placed in scene.objects]
    found = (c.name for c in CONJUNCTIONS if any(some.issuperset(c.parts) for some in objects))
    return frozenset(found)


def _names(rng: Generator) -> tuple[str, ...]:
    """One name for each object: 30% two different objects, else one to four of a kind."""
    is_pair = rng.random() < 0.3
    count = int(rng.choice([1, 2, 3, 4], p=[0.62, 0.15, 0.13, 0.10]))
    first, step = int(rng.integers(len(OBJECTS))), int(rng.integers(1, len(OBJECTS)))
    if is_pair:
        return OBJECTS[first], OBJECTS[(first + step) % len(OBJECTS)]
    return (OBJECTS[first],) * count


def _orientation(rng: Generator, names: Sequence[str]) -> Orientation:
    """Upright unless every object shows the turn."""
    chance = rng.random()
    if chance < 0.16:
        return "tilted" if all(DRAWN[name].tiltable for name in names) else "upright"
    if chance < 0.31:
        return "upside down" if all(DRAWN[name].flippable for name in names) else "upright"
    return "upright"


def _layout(
    rng: Generator, names: tuple[str, ...], orientation: Orientation
) -> tuple[tuple[Placed, ...], Literal["next to", "above", ""]]:
    relation: Literal["next to", "above", ""] = ""
    if len(names) == 1:
        centres, scales, sizes = _alone(rng)
    elif names[0] != names[1]:
        relation = "above" if rng.random() < 0.5 else "next to"
        centres, scales, sizes = _side_by_side(rng, vertical=relation == "above")
    else:
        centres, scales, sizes = _of_a_kind(rng, len(names))
    turn = {"upright": 0.0, "upside down": np.pi}.get(orientation)
    if turn is None:
        turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.44, 0.66)
    has_position = len(set(names)) == len(names)
    objects = tuple(
        Placed(
            name=name,
            centre=(float(x), float(y)),
            scale=float(scale),
            angle=float(turn + rng.normal(0, 0.05)),
            aspect=float(np.exp(rng.normal(0, 0.07))),
            size=size,
            position=position_at(x, y) if has_position else "",
            colour="",
        )
        for name, (x, y), scale, size in zip(names, centres, scales, sizes, strict=True)
    )
    return objects, relation


Places = tuple[list[tuple[float, float]], list[float], list[Size]]


def _alone(rng: Generator) -> Places:
    size: Size = pick(rng, ("small", "medium", "large"), p=(0.32, 0.36, 0.32))
    scale = rng.uniform(*SCALES[size])
    if rng.random() >= ASIDE_SHARE[size]:
        x, y = rng.uniform(-0.12, 0.12, 2) * (1.2 - scale)
        return [(x, y)], [scale], [size]
    offset = rng.uniform(0.42, 0.48) if size == "medium" else rng.uniform(0.5, 0.63)
    along, across = rng.choice([-1.0, 1.0]) * offset, rng.uniform(-0.18, 0.18)
    return [(along, across) if rng.random() < 0.5 else (across, along)], [scale], [size]


def _side_by_side(rng: Generator, vertical: bool) -> Places:
    """Two places: both aside, or a small one aside and the other near the middle."""
    across = rng.uniform(-0.08, 0.08, 2)
    if rng.random() < 0.65:
        along = np.array([-0.48, 0.48])
        sizes: list[Size] = ["small" if chance < 0.15 else "medium" for chance in rng.random(2)]
    else:
        along, sizes = np.array([-0.63, 0.21]), ["small", "medium"]
        if rng.random() < 0.5:
            along, sizes = -along[::-1], ["medium", "small"]
    scales = [rng.uniform(0.29, 0.34) if s == "small" else rng.uniform(0.42, 0.48) for s in sizes]
    along = along + rng.normal(0, 0.02, 2)
    pairs = zip(along, across, strict=True)
    return [(b, a) if vertical else (a, b) for a, b in pairs], scales, sizes


ARRANGEMENTS: dict[int, tuple[tuple[tuple[float, float], ...], ...]] = {
    2: (((-0.48, 0.0), (0.48, 0.0)), ((0.0, -0.48), (0.0, 0.48))),
    3: (((-0.5, 0.46), (0.5, 0.46), (0.0, -0.46)), ((-0.66, 0.0), (0.0, 0.0), (0.66, 0.0))),
    4: (((-0.48, -0.48), (0.48, -0.48), (-0.48, 0.48), (0.48, 0.48)),),
}


def _of_a_kind(rng: Generator, count: int) -> Places:
    arrangements = ARRANGEMENTS[count]
    arrangement = arrangements[1 if rng.random() < 0.4 and len(arrangements) > 1 else 0]
    in_a_row = count == 3 and arrangement[0][1] == arrangement[1][1] == arrangement[2][1]
    size: Size = "small" if in_a_row or rng.random() < 0.2 else "medium"
    # Three in a row must not touch.
    narrow = (0.26, 0.285) if in_a_row else (0.28, 0.32)
    scale = rng.uniform(*(narrow if size == "small" else (0.39, 0.44)))
    moves = rng.normal(0, 0.025, (count, 2))
    centres = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(arrangement, moves, strict=True)]
    return centres, [scale * rng.uniform(0.96, 1.04) for _ in centres], [size] * count


def position_at(x: float, y: float) -> Position:
    if abs(x) > CLEARLY_ASIDE:
        return "left" if x < 0 else "right"
    if abs(y) > CLEARLY_ASIDE:
        return "top" if y < 0 else "bottom"
    return ""


def choose_pen(
    rng: Generator, pattern: str, fillable: bool
) -> tuple[Literal["solid", "dashed", "dotted"], Literal["thin", "medium", "thick"], bool]:
    """Stroke, width and filling. Only solid lines vary in width: a thin dot cannot be seen."""
    chance, width_chance, fill_chance = rng.random(3)
    if not pattern and chance < 0.32:
        return "dashed" if chance < 0.16 else "dotted", "medium", False
    if not pattern and fillable and fill_chance < 0.2:
        return "solid", "medium", True
    if width_chance < 0.54:
        return "solid", "thick" if width_chance < 0.27 else "thin", False
    return "solid", "medium", False


def _coloured(rng: Generator, objects: tuple[Placed, ...], background: str) -> tuple[Placed, ...]:
    """Every different object gets one colour that its background does not swallow."""
    seen = [c for c in COLOURS if c not in HIDDEN_ON.get(background, ())]
    colours: dict[str, str] = {}
    for placed in objects:
        if placed.name not in colours:
            colours[placed.name] = pick(rng, seen)
    return tuple(replace(placed, colour=colours[placed.name]) for placed in objects)
