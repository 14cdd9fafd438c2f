"""A fake vision server of known rates, and pictures that it can read: each shows a number in bits.

Use as `Loopback(refuse=CodedVlm(...))`. It is told what is true of a number, and looks at pixels
alone; the canary's pictures it knows too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from interp.score.kinds.canary import LABEL
from tests.support.servers.loopback_answers import (
    Request,
    chat_body,
    letters_in,
    once_for_each_area,
    seen,
)

SIDE, N_BITS, BLOCK = 4, 16, 16


def draw_number(number: int) -> Image.Image:
    """Blocks of black and grey in a square; the first is black in every number."""
    bits = np.array([number >> bit & 1 for bit in range(N_BITS)], bool).reshape(SIDE, SIDE)
    return Image.fromarray(np.where(bits, 160, 0).astype(np.uint8)).resize(
        (SIDE * BLOCK,) * 2, Image.Resampling.NEAREST
    )


@once_for_each_area
def read_number(area: np.ndarray[Any, Any]) -> int:
    """-1 for a picture of another kind."""
    picture = Image.fromarray(area.astype(np.uint8)).convert("L")
    inner = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), float)
    if inner.max() > 220:
        return -1
    bits = inner.reshape(SIDE, 16, SIDE, 16)[:, 4:12, :, 4:12].mean((1, 3)) > 80
    return int((bits.reshape(-1) * 2 ** np.arange(N_BITS)).sum())


@dataclass
class CodedVlm:
    """Says yes to `hit` of the images of which a label is true, and to `alarm` of the others.

    Chance hangs on label and image alone: however often, and in whatever order, it says the same.
    """

    is_true: Callable[[str, int], bool]
    """Label, number of the image."""
    hit: float
    alarm: float
    slip: int = 0
    """Places by which grades stand under a wrong letter."""
    blind: bool = False
    """Grades by chance and the letter alone."""
    pull: int = 0
    """Points that a question with foils adds to grades of the label itself."""
    silent: frozenset[str] = frozenset()
    """Labels whose answers leave out the foils."""
    refused: frozenset[str] = frozenset()
    """Labels that get no grades at all."""
    worse_after: int | None = None
    """Questions after which it is another model: grades by chance and the letter alone."""
    n_asked: int = 0

    def __call__(self, request: Request) -> tuple[int, Any] | None:
        text = " ".join(request.texts)
        if "Which colour" in text:
            return None
        self.n_asked += 1
        if self.worse_after is not None and self.n_asked > self.worse_after:
            self.blind = True
        codes = letters_in(re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", text))
        (label,) = re.findall(r"Rule: <<<(.*?)>>>", text)
        foils = re.findall(r"^(rule_\d+): <<<(.*?)>>>$", text, re.MULTILINE)
        if label in self.refused:
            return 200, chat_body(request, "I will not grade these pictures.")
        areas = [(read_number(area), int(area.min())) for area in seen(request, codes)]
        own = [grade + self.pull * bool(foils) for grade in self._grades(label, areas)]
        if label in self.silent:
            foils = []
        answer: dict[str, Any] = dict(zip(codes, own[self.slip :] + own[: self.slip], strict=True))
        answer |= {key: self._grades(foil, areas) for key, foil in foils}
        return 200, chat_body(request, json.dumps(answer))

    def _grades(self, label: str, areas: list[tuple[int, int]]) -> list[int]:
        """`areas`: of each its number and its darkest value."""
        if self.blind:
            return [Random(f"{label} {at}").randrange(101) for at in range(len(areas))]
        return [self._grade(label, number, darkest) for number, darkest in areas]

    def _grade(self, label: str, number: int, darkest: int) -> int:
        if label == LABEL:
            return 100 if number < 0 and darkest < 80 else 0
        rate = self.hit if number >= 0 and self.is_true(label, number) else self.alarm
        return 80 if Random(f"{label} {number}").random() < rate else 10
