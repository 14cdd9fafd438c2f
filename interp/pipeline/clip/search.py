"""A run and words -> its latents in the order in which they fit the words.

A latent's direction is the one that it writes where the SAE sits on the projected embedding of the
run's CLIP; elsewhere the mean CLIP vector of its strongest images, less the mean of all of them.
How direction and label count: `interp/local/ranking.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.local.ranking import Ranked, Ranking, Texts
from interp.local.vocabulary import load_vocabulary
from interp.pipeline.clip.vectors import KeptRows, Rows, image_rows, readings, text_rows
from interp.records.types import Explanation
from interp.run.decoder import read_decoder
from interp.run.run import Run
from interp.run.verdicts import Review, fresh_reviews
from sae.core.errors import UserError
from sae.core.progress import Progress

if TYPE_CHECKING:
    from sae.clip.model import Clip

N_USUAL = 256
"""Words of the vocabulary whose mean is what is usual of a text."""
N_IMAGES = 8
"""Strongest images of a latent that stand for its direction where the decoder does not."""


class LatentSearch:
    """One run, ready to be asked; opening it may embed labels and images, which is kept in it."""

    def __init__(self, run: Run, device: str = "auto", progress: Progress | None = None) -> None:
        """Raises `UserError` where the run does not tell its CLIP, or that cannot be had."""
        self._run, self._device, self._progress = run, device, progress
        status = enumerate(run.evidence.status)
        self.latents = np.array([n for n, one in status if one != "dead"], np.int64)
        if not len(self.latents):
            raise UserError(f"{run.path} has no latent that is active on any image")
        said = [run.results.explanation(int(n)) for n in self.latents]
        reviews = fresh_reviews(run.path, run.results)
        texts = [
            _texts(one, reviews.get(int(n))) for n, one in zip(self.latents, said, strict=True)
        ]
        self._usual = self._rows(usual_words(self.clip_name)).mean(0)
        directions = self._find_directions()
        distinct = sorted({one.label for one in texts if one.label})
        known = dict(zip(distinct, self._rows(distinct), strict=True)) if distinct else {}
        labels = np.stack([known.get(one.label, self._usual) for one in texts])  # (n, d)
        self.ranking = Ranking(self.latents, directions, texts, labels, self._usual)

    @property
    def clip_name(self) -> str:
        """Of the store. Raises `UserError` where another lab's does not say it."""
        return self._run.evidence.store.info.clip or self._clip.name

    def rank(self, queries: Sequence[str], top: int, keep: bool = False) -> list[list[Ranked]]:
        """The `top` latents of each query; with `keep` their texts are kept in the run."""
        if not all(query.strip() for query in queries):
            raise UserError('the words to find are blank; name a thing, like "a wheel"')
        rows = self._rows(queries) if keep else self._embed(queries)
        return [self.ranking.rank(*one, top) for one in zip(queries, rows, strict=True)]

    def _rows(self, texts: Sequence[str]) -> Rows:
        return text_rows(self._kept_texts, lambda: self._clip, texts, self._progress)

    def _embed(self, texts: Sequence[str]) -> Rows:
        from interp.local.clip_encoder import embed_terms

        asked = [readings(text, self._clip.name) for text in texts]
        rows: Rows = embed_terms(self._clip, asked).numpy()
        return rows

    @cached_property
    def _clip(self) -> Clip:
        from sae.clip.store_images import load_clip_of, require_same_weights

        clip = load_clip_of(self._run.evidence.store, self._device)
        require_same_weights(clip, self._run.evidence.store)
        return clip

    @cached_property
    def _kept_texts(self) -> KeptRows:
        return KeptRows(self._run, "texts", self._sha)

    @property
    def _sha(self) -> str:
        return self._run.info.clip_sha or self._clip.sha

    def _find_directions(self) -> Rows:
        """(n, d) of each latent that is not dead; zeros where nothing stands for it."""
        store = self._run.evidence.store
        decoder = read_decoder(self._run) if store.info.layer == "projected" else None
        return decoder[self.latents] if decoder is not None else self._mean_images()

    def _mean_images(self) -> Rows:
        """(n, d) mean CLIP vector of the strongest images of each latent, less that of all."""
        from interp.local.clip_encoder import ClipEncoder

        reader = self._run.evidence
        shown = [reader.of(int(n)).of("explain", "top")[:N_IMAGES] for n in self.latents]
        rows = image_rows(
            self._run,
            KeptRows(self._run, "images", self._sha),
            lambda: ClipEncoder(self._clip),
            [example for examples in shown for example in examples],
            self._progress,
        )
        usual = np.mean(list(rows.values()), axis=0)
        found = np.zeros((len(shown), len(usual)), np.float32)
        for place, examples in enumerate(shown):
            there = [rows[e.image_id] for e in examples if e.image_id in rows]
            if there:
                found[place] = np.mean(there, axis=0) - usual
        return found


def usual_words(clip: str) -> list[str]:
    """An even sample of the vocabulary."""
    names = [term.name for term in load_vocabulary("auto", clip)]
    return names[:: max(1, len(names) // N_USUAL)]


def _texts(said: Explanation | None, review: Review | None) -> Texts:
    """What a latent is found by: a person's label in the place of the machine's."""
    label = (review.better if review else "") or (said.label if said else None) or ""
    second = (said.second_label if said else None) or ""
    return Texts(label, second, said.description if said else "")
