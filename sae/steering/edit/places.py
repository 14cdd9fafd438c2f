"""`--where` and a grid of patches -> which tokens are edited."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae.core.errors import UserError

WORDS = ("all", "peak", "cls")


@dataclass(frozen=True)
class Where:
    """One of `WORDS`, or patches by (x, y): columns from the left and rows from the top, from 0."""

    word: str
    patches: tuple[tuple[int, int], ...] = ()

    def mask(self, acts: Tensor, tokens: str, grid: Sequence[int]) -> Tensor:
        """(t, n_edits) bool for the activations (t, n_edits) of an image's tokens.

        The peak is each latent's own; one that is silent in the image has none.
        """
        n_cls = int(tokens != "patch")
        mask = torch.zeros_like(acts, dtype=torch.bool)
        if self.word == "all":
            mask[:] = True
        elif self.word == "cls":
            mask[0] = True
        elif self.word == "peak":
            patches = acts[n_cls:]  # (patches, n_edits)
            peak = patches.argmax(0, keepdim=True)
            mask[n_cls:].scatter_(0, peak, patches.gather(0, peak) > 0)
        for x, y in self.patches:
            mask[n_cls + y * grid[1] + x] = True
        return mask


def parse_where(text: str, tokens: str, grid: Sequence[int]) -> Where:
    """`all`, `peak`, `cls` or `x,y;x,y`. Raises `UserError` for what these tokens do not have."""
    word = text.strip().lower()
    if word not in WORDS and not re.fullmatch(r"\d+,\d+(;\d+,\d+)*;?", word.replace(" ", "")):
        raise UserError(
            f"--where {text!r} is none of all, peak, cls, and no list of patches such as 3,4;3,5 "
            "(column, row; from 0)"
        )
    if word == "cls" and tokens == "patch":
        raise UserError(
            "--where cls: this SAE reads patch tokens alone; use all, peak or patches x,y"
        )
    if word not in ("all", "cls") and tokens == "cls":
        raise UserError(f"--where {text}: this SAE reads the CLS token alone; use all or cls")
    if word in WORDS:
        return Where(word)
    pairs = [pair.split(",") for pair in word.replace(" ", "").strip(";").split(";")]
    patches = tuple((int(x), int(y)) for x, y in pairs)
    for x, y in patches:
        if x >= grid[1] or y >= grid[0]:
            raise UserError(
                f"--where {x},{y} is outside the grid of {grid[1]} x {grid[0]} patches: "
                f"x from 0 to {grid[1] - 1}, y from 0 to {grid[0] - 1}"
            )
    return Where("", patches)
