"""Words, and what is known of latents -> the latents in the order in which they fit the words.

Two things count, each from 0 to 1, and the mean of them is the match:

- the direction: the cosine between the words in CLIP and the latent's direction, as a share of the
  largest cosine that any latent of the run has with these words.
- the label: how far its words are those that were typed (`LabelWords`), or the cosine between the
  two texts in CLIP, whichever is larger. 0 without a label.

Of texts what is usual, the mean over a vocabulary, is taken off first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.local.label_words import LabelWords

Rows = NDArray[np.float32]
SAYS_IT = 0.8
"""Wording from which a label is as good as the words."""
STANDS_OUT = 4.0
"""Standard deviations: on the built-in world all but the vaguest of its concepts have a latent that
is so far out, and 2 of 30 things that it never shows."""


class Ranked(NamedTuple):
    """How a latent fits words."""

    latent: int
    match: float
    """0 to 1: what latents are ordered by."""
    direction: float
    """Cosine of the words and the latent's direction, -1 to 1."""
    wording: float
    """0 to 1: how far the label says the words."""
    deviation: float
    """The direction in standard deviations of all latents' from their mean: `STANDS_OUT` and above
    only where the latent is about these words."""


class Texts(NamedTuple):
    """What is said of a latent; "" where nothing is."""

    label: str
    second: str
    description: str


class Ranking:
    """Latents that words are held against; numpy alone."""

    def __init__(
        self,
        latents: NDArray[np.int64],
        directions: Rows,
        texts: Sequence[Texts],
        label_rows: Rows,
        usual: Rows,
    ) -> None:
        """`latents` (n,); `directions` and `label_rows` (n, d), what CLIP says of each label, zeros
        where there is none; `usual` (d,) the mean text."""
        self._latents, self._directions = latents, unit(directions)
        self._usual = usual
        self._words = LabelWords(*zip(*texts, strict=True))
        there = np.array([bool(one.label) for one in texts])
        self._labels = np.where(there[:, None], unit(label_rows - usual), np.float32(0))

    def rank(self, query: str, row: Rows, top: int) -> list[Ranked]:
        """The `top` latents for a query whose text CLIP gives the `row` (d,), the best first."""
        apart = unit((row - self._usual)[None])[0]
        direction = self._directions @ apart  # (n,) cosines
        said = np.maximum(self._words.agreement(query), self._labels @ apart).clip(0, 1)
        share = direction.clip(0) / max(float(direction.max()), 1e-6)
        match = (share + said) / 2
        spread = (direction - direction.mean()) / max(float(direction.std()), 1e-6)
        best = np.argsort(-match, kind="stable")[:top]
        columns = (match[best], direction[best], said[best], spread[best])
        latents = self._latents[best].tolist()
        return [Ranked(n, *map(float, one)) for n, *one in zip(latents, *columns, strict=True)]


def unit(rows: Rows) -> Rows:
    """(n, d) of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-6), np.float32)
