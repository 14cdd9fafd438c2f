"""The order of training: each token once a pass, neighbours apart, and any stretch on its own.

A pass puts the blocks (contiguous tokens) in random order, cuts that row of blocks into windows,
and shuffles each window as a whole. So a window is read from a few thousand contiguous pieces, and
data that fit into one window are shuffled completely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Order:
    """Endless: pass after pass, each in its own order, which `seed` alone decides.

    The stream's places are counted from 0; place s belongs to pass s // n_tokens.
    """

    def __init__(self, n_tokens: int, seed: int, n_block: int, n_window: int) -> None:
        """`n_block` tokens stay together on the way into a window of `n_window` tokens."""
        self.n_tokens = n_tokens
        self.n_window = n_window
        self._seed = seed
        self._n_block = n_block
        self._blocks: tuple[int, NDArray[np.int64]] | None = None
        self._window: tuple[int, int, NDArray[np.int64]] | None = None

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """The tokens, in [0, n_tokens), at the stream's places start .. stop - 1."""
        pieces = []
        while start < stop:
            end = min(stop, self.window_end(start))
            number, place = divmod(start, self.n_tokens)
            window = place // self.n_window
            first = number * self.n_tokens + window * self.n_window
            pieces.append(self._tokens(number, window)[start - first : end - first])
            start = end
        return np.concatenate(pieces)

    def window_end(self, place: int) -> int:
        """Where the window ends that holds `place`: the next one's first place."""
        number, place = divmod(place, self.n_tokens)
        within = min(self.n_tokens, (place // self.n_window + 1) * self.n_window)
        return number * self.n_tokens + within

    def _tokens(self, number: int, window: int) -> NDArray[np.int64]:
        """A window of a pass. The last one is kept: the next stretch begins in it."""
        if self._window is None or self._window[:2] != (number, window):
            first = window * self.n_window
            places = np.arange(first, min(first + self.n_window, self.n_tokens))
            tokens = self._in_blocks(number, places)
            np.random.default_rng([self._seed, number, 1 + window]).shuffle(tokens)
            self._window = (number, window, tokens)
        return self._window[2]

    def _in_blocks(self, number: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """What stands at these places of a pass whose blocks are shuffled, and not its tokens."""
        n_blocks = -(-self.n_tokens // self._n_block)
        if self._blocks is None or self._blocks[0] != number:
            rng = np.random.default_rng([self._seed, number])
            self._blocks = (number, rng.permutation(n_blocks))
        blocks = self._blocks[1]
        n_missing = n_blocks * self._n_block - self.n_tokens
        short = int(np.flatnonzero(blocks == n_blocks - 1)[0])  # the last block is not full
        end_of_short = (short + 1) * self._n_block - n_missing
        places = places + n_missing * (places >= end_of_short)
        return blocks[places // self._n_block] * self._n_block + places % self._n_block
