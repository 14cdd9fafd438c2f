"""From pixels to tokens: how each family of vision models counts a picture.

Sizes are (width, height) in pixels. Where a bill was seen to differ from the vendor's formula the
rule holds what was billed. The bill may still differ by host (a host can cap the size of a
picture): what a model and provider did bill, once known, is better than any rule here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol


class Rule(Protocol):
    """Tokens of one picture; not rounded, because some bills are rounded over all pictures."""

    def tokens(self, width: int, height: int) -> float: ...


@dataclass(frozen=True)
class Flat:
    """The same for every picture, whatever its size."""

    each: int

    def tokens(self, width: int, height: int) -> float:
        return self.each


@dataclass(frozen=True)
class Patches:
    """Squares of `side` pixels, those cut by the border included."""

    side: int
    longest: int
    """Pixels of the longer side; a larger picture is scaled down."""
    most: int = 1_000_000
    """Patches; likewise."""
    each: float = 1.0
    """Tokens billed for a patch."""
    row_breaks: bool = False
    """Whether each row ends with a token of its own."""

    def tokens(self, width: int, height: int) -> float:
        scale = min(1.0, self.longest / max(width, height))
        across, down = self._cut(round(width * scale), round(height * scale))
        return (across + self.row_breaks) * down * self.each

    def _cut(self, width: int, height: int) -> tuple[int, int]:
        across, down = width / self.side, height / self.side
        if math.ceil(across) * math.ceil(down) > self.most:
            # As OpenAI's guide shrinks: to the budget, then until one side is whole patches.
            shrink = math.sqrt(self.most / (across * down))
            across, down = across * shrink, down * shrink
            shrink = min(max(1, int(across)) / across, max(1, int(down)) / down)
            across, down = across * shrink - 1e-9, down * shrink - 1e-9
        return max(1, math.ceil(across)), max(1, math.ceil(down))


@dataclass(frozen=True)
class Tiles:
    """OpenAI's older models: into 2048 x 2048, the shorter side to 768, then 512-px tiles."""

    base: int
    each: int

    def tokens(self, width: int, height: int) -> float:
        scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
        across, down = (math.ceil(round(side * scale) / 512) for side in (width, height))
        return self.base + self.each * across * down


@dataclass(frozen=True)
class ShorterSideTiles:
    """Gemini up to 2.5: tiles of the shorter side / 1.5; one when the picture is small.

    Uncertain: some users were billed for one tile (258) at any size. The larger figure is taken.
    """

    each: int = 258

    def tokens(self, width: int, height: int) -> float:
        if max(width, height) <= 384:
            return self.each
        side = min(768.0, max(256.0, min(width, height) / 1.5))
        return self.each * math.ceil(width / side) * math.ceil(height / side)


@dataclass(frozen=True)
class Rounded:
    """Qwen-VL: both sides rounded to `side`, small pictures enlarged, large ones reduced."""

    side: int
    least: int
    """Patches of the smallest picture that is taken as it is."""
    most: int = 16_384

    def tokens(self, width: int, height: int) -> float:
        across, down = width / self.side, height / self.side
        n_across, n_down = max(1, round(across)), max(1, round(down))
        if n_across * n_down > self.most:
            scale = math.sqrt(self.most / (across * down))
            n_across, n_down = max(1, int(across * scale)), max(1, int(down * scale))
        elif n_across * n_down < self.least:
            scale = math.sqrt(self.least / (across * down))
            n_across, n_down = (math.ceil(n * scale - 1e-9) for n in (across, down))
        return n_across * n_down + 2  # and the marks before and after it


@dataclass(frozen=True)
class Canvas:
    """Llama: the canvas of at most `most` tiles that enlarges the picture least, or shrinks it
    least where none holds it."""

    side: int
    most: int
    each: int
    overview: bool
    """Whether a picture of several tiles also comes once as a whole."""

    def tokens(self, width: int, height: int) -> float:
        n_tiles = self._n_tiles(width / self.side, height / self.side)
        return self.each * (n_tiles + (self.overview and n_tiles > 1))

    def _n_tiles(self, across: float, down: float) -> int:
        shapes = [(a, d) for a in range(1, self.most + 1) for d in range(1, self.most // a + 1)]
        scales = {(a, d): min(a / across, d / down) for a, d in shapes}
        holding = [scale for scale in scales.values() if scale >= 1]
        best = min(holding) if holding else max(scales.values())
        return min(a * d for (a, d), scale in scales.items() if scale == best)


@dataclass(frozen=True)
class Reshaped:
    """Gemma 4: scaled up or down to at most `most` tokens, its shape kept."""

    most: int = 280

    def tokens(self, width: int, height: int) -> float:
        across = int(math.sqrt(self.most * width / height))
        down = int(math.sqrt(self.most * height / width))
        return max(1, across) * max(1, down)


class Family(NamedTuple):
    """What is known of the models whose id a pattern finds."""

    pattern: str
    rule: Rule
    per_call: int = 10
    """Tokens of every call beside its text and pictures; 10 stands for a usual chat template."""
    characters: float = 3.6
    """Of English prompt text to a token; 3.6 is a middle for all families, good to 15%."""
    known: bool = True


_NOT_CLAUDE_4_7 = r"claude-(?:[a-z]+-)?(?:[1-3](?!\d)|4(?:[.-][0-6])?(?!\d|[.-]\d(?!\d)))"


def _openai(pattern: str, rule: Rule) -> Family:
    """Two messages of 4 tokens and 3 to start the answer; our prompts have 3.8 to 5.1 characters
    to a token by o200k_base, 4.1 on the whole."""
    return Family(pattern, rule, per_call=11, characters=4.1)


FAMILIES = (
    Family(_NOT_CLAUDE_4_7, Patches(28, longest=1568, most=1568), per_call=65),
    Family(r"claude", Patches(28, longest=2576, most=4784), per_call=77),
    _openai(r"gpt-4o-mini", Tiles(2833, 5667)),
    _openai(r"gpt-4\.1-mini", Patches(32, 2048, 1536, 1.62)),
    _openai(r"gpt-4\.1-nano", Patches(32, 2048, 1536, 2.46)),
    _openai(r"o4-mini", Patches(32, 2048, 1536, 1.72)),
    _openai(r"gpt-5-nano", Patches(32, 2048, 1536, 1.5)),
    _openai(r"gpt-5-mini|gpt-5\.[23]|gpt-5\.\d-(?:mini|nano)", Patches(32, 2048, 1536, 1.2)),
    _openai(r"gpt-5\.[4-9]|gpt-[6-9]", Patches(32, 2048, 2500, 1.2)),
    _openai(r"gpt-5", Tiles(70, 140)),
    _openai(r"gpt-4o|gpt-4\.[15]|gpt-4-turbo", Tiles(85, 170)),
    _openai(r"(?:^|/)o[13](?![a-z0-9.])", Tiles(75, 150)),
    Family(r"gemini-(?:[a-z]+-)?[12]\.", ShorterSideTiles()),
    Family(r"gemini", Flat(1089)),
    Family(r"qwen-?2(?:\.5)?-?vl|qwen-vl|qvq", Rounded(28, least=4)),
    Family(r"qwen", Rounded(32, least=64)),
    Family(r"pixtral", Patches(16, longest=1024, row_breaks=True)),
    Family(r"mi(?:ni)?stral|magistral|devstral", Patches(28, longest=1540, row_breaks=True)),
    Family(r"llama-?4", Canvas(336, most=16, each=144, overview=True)),
    Family(r"llama-?3\.2", Canvas(560, most=4, each=1601, overview=False)),
    Family(r"gemma-?4", Reshaped()),
    Family(r"gemma", Flat(256)),
)
"""The first whose pattern is found in the id, in small letters, counts."""

UNKNOWN = Family("", Patches(28, longest=2048, each=1.5), known=False)
"""Cautious: half as much again as the 28-px patches that most open models have."""


@cache
def family_of(model: str) -> Family:
    """By a model's id, with or without maker, variant (":free") and date."""
    name = model.lower()
    return next((f for f in FAMILIES if re.search(f.pattern, name)), UNKNOWN)
