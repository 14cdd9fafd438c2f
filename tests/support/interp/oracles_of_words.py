"""A judge that is free and knows the truth of every word: for the statistics of nulls."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from interp.records.types import Explanation, Verdict
from interp.score.nulls.suite import wording
from tests.support.interp.latents import explained

N_IMAGES = 40
"""Of a latent's test: the first half are positives; of the negatives every other one is hard."""
CONCEPTS = tuple(f"concept{number}" for number in range(400))
"""Words, of which number n is what latent n answers to."""

KNOWN = {concept: number for number, concept in enumerate(CONCEPTS)}


class WordOracle:
    """Grades image `latent/place` by whether the word is true of it, with noise.

    Word n is true of the positives of latent n and of a tenth of all other images.
    """

    def __init__(self, noise: float = 25.0, seed: int = 0) -> None:
        self.noise, self.seed = noise, seed
        self.prepared: list[str] = []

    def prepare(self, labels: Sequence[str]) -> None:
        self.prepared += labels

    def grade_all(self, labels: Sequence[str], image_ids: Sequence[str]) -> NDArray[np.float64]:
        latent = int(image_ids[0].split("/")[0])
        places = [int(one.split("/")[1]) for one in image_ids]
        return np.array([self.row(label, latent)[places] for label in labels])

    def kinship(self, label: str, labels: Sequence[str]) -> NDArray[np.float64]:
        return np.array([float(wording(one) == wording(label)) for one in labels])

    def row(self, label: str, latent: int) -> NDArray[np.float64]:
        """(40,) grades of all images of a latent's test."""
        rng = np.random.default_rng([self.seed, latent, zlib.crc32(label.encode())])
        noise, chance = rng.normal(size=N_IMAGES), rng.random(N_IMAGES) < 0.1
        true = chance & (label in KNOWN)
        if KNOWN.get(label) == latent:
            true[: N_IMAGES // 2] = True
        return np.clip(20 + 60 * true + self.noise * noise, 0, 100)


def judged(latent: int, label: str, oracle: WordOracle) -> tuple[Explanation, list[Verdict]]:
    """What a label of a latent was tested on, with the oracle's grades."""
    ids = [f"{latent}/{place}" for place in range(N_IMAGES)]
    grades = oracle.grade_all([label], ids)[0].tolist()
    half = N_IMAGES // 2
    verdicts = [
        Verdict(
            image_id=image_id,
            row=place,
            truth=place < half,
            act=float(place < half),
            stratum=-1,
            kind="quantile" if place < half else ("hard", "silent")[place % 2],
            domain=("sketch", "photo")[place // 2 % 2],
            score=grade,
        )
        for place, (image_id, grade) in enumerate(zip(ids, grades, strict=True))
    ]
    return explained(latent, label), verdicts
