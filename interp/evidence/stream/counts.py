"""Active (image, latent) pairs -> counts, sums and a histogram of every latent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.evidence.stream.activations import ImageActs
from interp.evidence.stream.top_k import Acts, Ints
from interp.records.types import N_BINS

_FINE_BINS = 512
_BLOCK = 1024
"""Latents whose bins are worked out at a time."""
MAX_CLASS_CELLS = 50_000_000
"""Latents times classes counted exactly (200 MB); beyond that classes come from a sample."""


class Tally:
    """Counts and sums per latent: some 2 kB each, and the class counts."""

    def __init__(self, n_latents: int, n_sides: int, n_domains: int, n_classes: int) -> None:
        self.n_active = np.zeros((n_latents, n_sides, n_domains), np.int64)
        """Active images per latent, side and domain."""
        self.n_tokens = np.zeros(n_latents, np.int64)
        """Active tokens."""
        self._sums = ExactSums(n_latents)
        self.max_acts = np.zeros(n_latents, np.float32)
        self.classes: NDArray[np.uint32] | None = None
        """Active images (n_latents, n_classes); None when that would be too much to hold."""
        if n_latents * n_classes <= MAX_CLASS_CELLS:
            self.classes = np.zeros((n_latents, n_classes), np.uint32)
        self._histogram = Histogram(n_latents)

    def update(self, found: ImageActs, sides: Ints, domains: Ints, classes: Ints) -> None:
        """Add a batch's active pairs; the arrays (n,) tell of each pair's image (class or -1)."""
        np.add.at(self.n_active, (found.latents, sides, domains), 1)
        np.add.at(self.n_tokens, found.latents, found.n_tokens)
        self._sums.update(found.latents, found.acts)
        np.maximum.at(self.max_acts, found.latents, found.acts)
        self._histogram.update(found.latents, found.acts)
        if self.classes is not None:
            named = classes >= 0
            np.add.at(self.classes, (found.latents[named], classes[named]), 1)

    @property
    def sum_acts(self) -> NDArray[np.float64]:
        """(n_latents,) sums of activations."""
        return self._sums.result()

    def arrays(self) -> list[NDArray[Any]]:
        """Where the state lies."""
        counts: list[NDArray[Any]] = [self.n_active, self.n_tokens, self.max_acts]
        counts += self._sums.arrays()
        return [*counts, *self._histogram.arrays(), *self._of_classes()]

    def _of_classes(self) -> list[NDArray[Any]]:
        return [] if self.classes is None else [self.classes]

    def merge(self, other: Tally) -> None:
        """Add what was counted of other images."""
        self.n_active += other.n_active
        self.n_tokens += other.n_tokens
        np.maximum(self.max_acts, other.max_acts, out=self.max_acts)
        self._sums.merge(other._sums)
        self._histogram.merge(other._histogram)
        if self.classes is not None and other.classes is not None:
            self.classes += other.classes

    def histogram(self) -> Ints:
        """(n_latents, 32) active images in equal bins of act / max_act."""
        return self._histogram.rebin(self.max_acts)


class ExactSums:
    """Sums of float32 numbers above 0 without rounding: those of parts add up to that of the whole.

    A number is 24 bits times a power of two. It is added to the whole number that holds its range
    of 8 powers; below 2^31 each, so that 2^32 of them fit.
    """

    def __init__(self, n_sums: int) -> None:
        self._parts = np.zeros((n_sums, -(-(_HIGHEST - _SMALLEST) // _RANGE)), np.int64)

    def update(self, places: Ints, numbers: Acts) -> None:
        """Add each number (n,) to the sum at its place."""
        fractions, exponents = np.frexp(numbers.astype(np.float64))
        whole = np.ldexp(fractions, _DIGITS).astype(np.int64)
        part, shift = np.divmod(exponents.astype(np.int64) - _DIGITS - _SMALLEST, _RANGE)
        np.add.at(self._parts, (places, part), whole << shift)

    def arrays(self) -> list[NDArray[Any]]:
        """Where the state lies."""
        return [self._parts]

    def merge(self, other: ExactSums) -> None:
        """Add another's sums."""
        self._parts += other._parts

    def result(self) -> NDArray[np.float64]:
        """(n_sums,) each rounded once."""
        sums = np.zeros(len(self._parts))
        for place in np.flatnonzero(self._parts.any(1)).tolist():
            parts = self._parts[place]
            used = np.flatnonzero(parts).tolist()
            whole = sum(int(parts[k]) << (_RANGE * k) for k in used)
            sums[place] = whole / (1 << -_SMALLEST)  # Python rounds a quotient of integers once
        return sums


class Histogram:
    """Counts in 512 equal bins of [0, 2^e), where e grows with the largest activation of a latent.

    The maximum is not known until the last image. When an activation reaches 2^e, neighbouring
    bins are added up and e rises by one: exact, in any order of the images. 257 to 512 bins are
    then in use, so 32 bins over [0, max] can be off by no more than the images in an eighth of a
    bin on either edge.
    """

    def __init__(self, n_latents: int) -> None:
        self._counts = np.zeros((n_latents, _FINE_BINS), np.uint32)
        self._exponents = np.full(n_latents, _LOWEST, np.int32)

    def update(self, latents: Ints, acts: Acts) -> None:
        """Count activations (n,), all > 0."""
        _, exponents = np.frexp(acts)  # act < 2^exponent
        before = self._exponents.copy()
        np.maximum.at(self._exponents, latents, exponents)
        self._fold(before)
        scaled = np.ldexp(acts.astype(np.float64), -self._exponents[latents])
        np.add.at(self._counts, (latents, (scaled * _FINE_BINS).astype(np.int64)), 1)

    def arrays(self) -> list[NDArray[Any]]:
        """Where the state lies."""
        return [self._counts, self._exponents]

    def merge(self, other: Histogram) -> None:
        """Add another's counts, which are folded to the same bins."""
        highest = np.maximum(self._exponents, other._exponents)
        for each in (self, other):
            before, each._exponents[:] = each._exponents.copy(), highest
            each._fold(before)
        self._counts += other._counts

    def rebin(self, maxima: Acts) -> Ints:
        """(n_latents, 32) counts over [0, maximum]; each fine bin goes where its middle lies."""
        hist = np.zeros((len(maxima), N_BINS), np.int64)
        for start in range(0, len(maxima), _BLOCK):
            part = slice(start, start + _BLOCK)
            exponents, highest = self._exponents[part, None], maxima[part, None]
            middles = np.ldexp((np.arange(_FINE_BINS) + 0.5) / _FINE_BINS, exponents)
            share = middles / np.maximum(highest, np.finfo(np.float32).tiny)
            bins = (share * N_BINS).astype(np.int64).clip(max=N_BINS - 1)
            latents = np.arange(start, start + len(bins))[:, None]
            np.add.at(hist, (latents, bins), self._counts[part])
        return hist

    def _fold(self, before: NDArray[np.int32]) -> None:
        """Halve the resolution of each latent as often as its exponent has risen."""
        steps = np.minimum(self._exponents - before, _FINE_BINS.bit_length())
        steps[before == _LOWEST] = 0  # nothing counted yet
        while (late := np.flatnonzero(steps > 0)).size:
            halved = self._counts[late].reshape(len(late), -1, 2).sum(2, dtype=np.uint32)
            self._counts[late] = np.pad(halved, ((0, 0), (0, _FINE_BINS // 2)))
            steps[late] -= 1


_RANGE, _DIGITS, _SMALLEST, _HIGHEST = 8, 24, -172, 105
"""Powers of two that are summed together; bits of a float32; and the powers of its lowest bit."""
_LOWEST = -(1 << 20)
"""Exponent of a latent without any activation yet."""
