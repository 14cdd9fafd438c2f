"""A fake vision server that knows a drawn world: right and wrong at given rates, by its pictures.

It finds each picture that it is sent among the world's images, by its pixels alone, and answers by
the truth about that image. Use as `Loopback(refuse=KnowingVlm(world, truth, hit, alarm))`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interp.bench.naming import WorldTruth
from tests.support.servers.loopback_answers import Request, chat_body, letters_in, seen

SIDE = 12


def small(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), float)


class KnowingVlm:
    """Says yes to `hit` of the images of which a label is true, and to `alarm` of the others; names
    what most of the first set shows and the second does not."""

    def __init__(self, world: Path, truth: WorldTruth, hit: float, alarm: float) -> None:
        self.truth, self.hit, self.alarm = truth, hit, alarm
        files = [world / path for path in truth.frame["path"]]
        self.known = np.stack([small(Image.open(file)) for file in files])
        self.rng = np.random.default_rng(0)

    def __call__(self, request: Request) -> tuple[int, Any] | None:
        text = " ".join(request.texts)
        if "Which colour" in text:
            return None
        codes = letters_in(re.search(r"pictures ((?:[A-Z](?:, | and )?)+)", text))
        rows = self._rows(request, codes)
        said = self._explain(request, codes, rows) if "second_label" in text else None
        return 200, chat_body(request, json.dumps(said or self._grade(text, codes, rows)))

    def _rows(self, request: Request, codes: list[str]) -> list[int]:
        areas = seen(request, codes)
        pictures = [small(Image.fromarray(area.astype(np.uint8))) for area in areas]
        return [int(((self.known - one) ** 2).mean((1, 2, 3)).argmin()) for one in pictures]

    def _grade(self, text: str, codes: list[str], rows: list[int]) -> dict[str, int]:
        label = re.search(r"<<<(.*?)>>>", text, re.DOTALL)
        assert label is not None
        true = self.truth.where(label.group(1).strip())[rows]
        says = self.rng.random(len(rows)) < np.where(true, self.hit, self.alarm)
        return {code: 90 if yes else 10 for code, yes in zip(codes, says, strict=True)}

    def _explain(self, request: Request, codes: list[str], rows: list[int]) -> dict[str, Any]:
        lift = self.truth.flags[rows].mean(0) - self.truth.flags.mean(0)
        label = self.truth.names[int(lift.argmax())]
        return {
            "seen": dict.fromkeys(codes, "a drawing"),
            "second_set": "others",
            "domain": "any",
            "candidates": [{"level": "thing", "text": label, "fits": codes}],
            "verdict": "single",
            "label": label,
            "second_label": None,
            "level": "thing",
            "description": "",
            "exceptions": [],
            "confidence": 90,
        }
