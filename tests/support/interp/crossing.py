"""Latents planted across two domains, and a judge that knows the truth: for the 2x2.

Every latent answers to one concept on sketches and to one on photos, `None` where it is silent.
"""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import norm

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from interp.evidence.reader import EvidenceReader
from interp.records.transfer import Transfer
from interp.records.types import Score
from interp.score.judge import Judgement, Pictures
from interp.score.latent import score_latent
from interp.score.transfer import CELL_SAMPLE, Domains, classify
from tests.support.interp.collected import D, image_rows, make_sae, write_store
from tests.support.interp.latents import explained

N_CONCEPTS = 24
RATE = 0.06
"""Share of the images of which a concept is true."""
PAIR = ("sketch", "photo")

Meaning = tuple[int | None, int | None]
"""The concepts that a latent answers to on sketches and on photos."""
SHAPE = [(c, c) for c in range(8)]
CROSSED = [(c, c + 8) for c in range(8)]
SKETCHES = [(c, None) for c in range(3)]
PHOTOS = [(None, c) for c in range(3)]
EVERYTHING = -1
"""In the place of a concept: every image; with `None` beside it a latent of the medium itself."""
MEANINGS: list[Meaning] = [*SHAPE, *CROSSED, *SKETCHES, *PHOTOS, (EVERYTHING, None)]
TRUE = ["shape"] * 8 + ["domain-bound"] * 15


class Planted(NamedTuple):
    """A store's evidence, and what is true of its images."""

    reader: EvidenceReader
    truth: dict[str, NDArray[np.bool_]]
    """By image id: (N_CONCEPTS,)."""


def plant(folder: Path, n_images: int = 2400, seed: int = 0, n_by_domain: int = 24) -> Planted:
    """Two thirds sketches; latent i answers as `MEANINGS[i]` says, the more the larger."""
    rng = np.random.default_rng(seed)
    rows = image_rows(n_images)
    concepts = rng.random((n_images, N_CONCEPTS)) < RATE
    x = np.zeros((n_images, 1, D), np.float32)
    strength = rng.integers(1, 30, (n_images, D))
    for latent, meaning in enumerate(MEANINGS):
        for domain, concept in zip(PAIR, meaning, strict=True):
            here = np.array([row.domain == domain for row in rows])
            if concept is not None:
                fires = here & ((concept == EVERYTHING) | concepts[:, concept])
                x[fires, 0, latent] = strength[fires, latent]
    store = write_store(folder / "store", torch.from_numpy(x), rows)
    config = CollectConfig(n_by_domain=n_by_domain, dense_above=1.0)
    collect(store, make_sae(k=D), folder / "run", config)
    return Planted(
        EvidenceReader(folder / "run"),
        {row.image_id: flags for row, flags in zip(rows, concepts, strict=True)},
    )


class Oracle:
    """Grades by the truth about "concept N", so that it tells true from false at an AUROC."""

    name, prompt = "oracle", ""

    def __init__(self, planted: Planted, area: float, seed: int = 0) -> None:
        self._truth, self._rng = planted.truth, np.random.default_rng(seed)
        self._lead = min(float(norm.ppf(area)), 6.0) * 2**0.5  # 1 is 6 sd

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        concept = int(label.split()[1])
        grades = {}
        for tile in pictures():
            is_true = concept != EVERYTHING and self._truth[tile.image_id][concept]
            noise = self._rng.normal()
            grades[tile.letter] = float(np.clip(40 + 8 * (noise + self._lead * is_true), 0, 100))
        return Judgement(grades)


def crossed(planted: Planted, area: float, seed: int = 0) -> list[Transfer]:
    """The 2x2 of every latent, named rightly on each domain and judged by the oracle."""
    judge, reader = Oracle(planted, area, seed), planted.reader
    counts = reader.store.images["domain"].value_counts()
    domains = Domains(*PAIR, int(counts["sketch"]), int(counts["photo"]))
    made = []
    for latent, meaning in enumerate(MEANINGS):
        known = dict(zip(PAIR, meaning, strict=True))
        labels = {on: None if (c := known[on]) is None else f"concept {c}" for on in PAIR}
        scores: dict[tuple[str, str], Score] = {}
        for on, at in product(PAIR, repeat=2):
            if labels[on] is not None:
                evidence = reader.in_domain(at).of(latent)
                test = explained(latent, labels[on])
                asked = score_latent(evidence, test, judge, lambda _: _BLANK, CELL_SAMPLE)
                scores[on, at] = asyncio.run(asked)
        made.append(classify(reader.stats(latent), domains, labels, scores))
    return made


_BLANK = Image.new("RGB", (8, 8))
