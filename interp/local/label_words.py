"""Words that were typed, and labels -> how far they agree, by their words alone; no model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LITTLE = frozenset(
    ("a", "an", "the", "some", "of", "in", "on", "at", "with", "and", "or", "is", "are", "to")
)
"""Words that are left out, where others are left."""
DESCRIBED = 0.5
"""What a word counts that only the description has."""


def stems(text: str) -> frozenset[str]:
    """The words of a text without case, little words and the plural's ending."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset(_singular(word) for word in words if word not in LITTLE) or frozenset(words)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


class WordIndex:
    """Which of many texts have which words. Each text belongs to a latent's place."""

    def __init__(self, texts: Sequence[str]) -> None:
        found: dict[str, list[int]] = {}
        sizes = np.zeros(len(texts), np.int64)
        for place, text in enumerate(texts):
            words = stems(text)
            sizes[place] = len(words)
            for word in words:
                found.setdefault(word, []).append(place)
        self._sizes = sizes
        self._places = {word: np.array(places) for word, places in found.items()}

    def common(self, query: frozenset[str]) -> NDArray[np.int64]:
        """(n,) how many of the query's words each text has."""
        counts = np.zeros(len(self._sizes), np.int64)
        for word in query:
            counts[self._places.get(word, [])] += 1
        return counts

    def overlap(self, query: frozenset[str]) -> NDArray[np.float64]:
        """(n,) words in common over words of either: 1 for the same words, 0 for none."""
        common = self.common(query)
        return np.asarray(common / np.maximum(self._sizes + len(query) - common, 1))


class LabelWords:
    """Labels, second labels and descriptions of latents, by their words."""

    def __init__(
        self, labels: Sequence[str], seconds: Sequence[str], descriptions: Sequence[str]
    ) -> None:
        self._labels, self._seconds = WordIndex(labels), WordIndex(seconds)
        self._descriptions = WordIndex(descriptions)

    def agreement(self, query: str) -> NDArray[np.float64]:
        """(n,) 0 to 1: the overlap with the label or with the second one, whichever is larger; at
        least half the share of the query's words that the description has."""
        words = stems(query)
        if not words:
            return np.zeros(len(self._labels.common(words)))
        described = DESCRIBED * self._descriptions.common(words) / len(words)
        either = np.maximum(self._labels.overlap(words), self._seconds.overlap(words))
        return np.asarray(np.maximum(either, described))
