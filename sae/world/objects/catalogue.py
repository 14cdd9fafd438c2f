"""A name -> one of the 59 objects: its parts, and which attributes a person could see on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from sae.world.objects import forms, nature, things
from sae.world.objects.shapes import Parts


@dataclass(frozen=True)
class DrawnObject:
    """How one object is drawn, and what may be said of it."""

    shape: Parts | Callable[[Generator], Parts]
    tiltable: bool = True
    """A turn by 25-38 degrees shows: false where the turned object looks upright again."""
    flippable: bool = True
    """Half a turn reads as "upside down": false for symmetric objects and for lying ones."""
    patterned: bool = True
    """Its own area is wide enough for stripes, spots or checks at 64 pixels."""
    fillable: bool = True
    """Filling it with ink changes what one sees."""
    fine: bool = False
    """Its lines lie so close together that a photo draws them thinner."""

    def parts(self, vary: Generator) -> Parts:
        return self.shape(vary) if callable(self.shape) else self.shape


def _turning(shape: Parts | Callable[[Generator], Parts], **traits: bool) -> DrawnObject:
    """An object that looks the same, or not wrong, when it is turned."""
    return DrawnObject(shape, tiltable=False, flippable=False, **traits)


def _lines(shape: Parts | Callable[[Generator], Parts], **traits: bool) -> DrawnObject:
    """An object of bare lines: nothing to fill."""
    return DrawnObject(shape, flippable=False, patterned=False, fillable=False, **traits)


DRAWN: dict[str, DrawnObject] = {
    "circle": _turning(forms.CIRCLE),
    "triangle": DrawnObject(forms.TRIANGLE),
    "square": _turning(forms.SQUARE),
    "star": DrawnObject(forms.star, tiltable=False),
    "spiral": _lines(forms.spiral, tiltable=False, fine=True),
    "zigzag": _lines(forms.zigzag),
    "wave": _lines(forms.wave),
    "grid": _lines(forms.grid, tiltable=False, fine=True),
    "cross": _turning(forms.cross),
    "arrow": DrawnObject(forms.arrow, flippable=False),
    "rings": _turning(forms.RINGS, patterned=False),
    "crescent": _turning(forms.CRESCENT),
    "heart": DrawnObject(forms.HEART),
    "diamond": DrawnObject(forms.DIAMOND, flippable=False),
    "hexagon": _turning(forms.HEXAGON),
    "dots": _turning(forms.DOTS, patterned=False),
    "house": DrawnObject(things.house),
    "tree": DrawnObject(nature.TREE),
    "pine": DrawnObject(nature.PINE),
    "fish": DrawnObject(nature.FISH, flippable=False),
    "face": DrawnObject(nature.face),
    "cup": DrawnObject(things.CUP),
    "flower": DrawnObject(nature.flower),
    "ladder": _lines(things.ladder),
    "wheel": _turning(things.wheel, patterned=False, fine=True),
    "key": DrawnObject(things.KEY, flippable=False, patterned=False),
    "umbrella": DrawnObject(things.UMBRELLA),
    "boat": DrawnObject(things.BOAT),
    "cat": DrawnObject(nature.CAT, fine=True),
    "bird": DrawnObject(nature.BIRD),
    "car": DrawnObject(things.CAR),
    "mushroom": DrawnObject(nature.MUSHROOM),
    "butterfly": DrawnObject(nature.BUTTERFLY),
    "sun": _turning(nature.sun, patterned=False),
    "cloud": _turning(nature.CLOUD),
    "mountain": DrawnObject(nature.MOUNTAIN),
    "chair": DrawnObject(things.CHAIR, patterned=False),
    "table": DrawnObject(things.TABLE, patterned=False),
    "lamp": DrawnObject(things.LAMP),
    "bottle": DrawnObject(things.BOTTLE),
    "glasses": DrawnObject(things.GLASSES, flippable=False, patterned=False),
    "hammer": DrawnObject(things.HAMMER),
    "sword": DrawnObject(things.SWORD, patterned=False),
    "clock": _turning(things.clock, patterned=False, fine=True),
    "envelope": DrawnObject(things.ENVELOPE),
    "balloon": DrawnObject(things.BALLOON),
    "snowman": DrawnObject(nature.SNOWMAN),
    "apple": DrawnObject(nature.APPLE),
    "leaf": DrawnObject(nature.LEAF),
    "snail": DrawnObject(nature.SNAIL),
    "cactus": DrawnObject(nature.CACTUS),
    "rocket": DrawnObject(things.ROCKET),
    "crown": DrawnObject(things.CROWN),
    "anchor": DrawnObject(things.ANCHOR, patterned=False, fillable=False, fine=True),
    "candle": DrawnObject(things.CANDLE),
    "eye": DrawnObject(nature.EYE, patterned=False),
    "flag": DrawnObject(things.FLAG),
    "bell": DrawnObject(things.BELL),
    "kite": DrawnObject(things.KITE),
}
