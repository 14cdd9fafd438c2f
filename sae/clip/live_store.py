"""A list of images and their CLIP -> a store whose embeddings are computed when asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.clip.embed import MAX_SKIPPED
from sae.clip.image_loader import ImageLoader, Refused, default_workers
from sae.clip.model import Clip, load_clip
from sae.clip.store_images import require_same_weights
from sae.clip.vectors import embed_batch
from sae.core.errors import FAILURES, Notice, UserError
from sae.data.roots import locate
from sae.data.sources.folders import ImageFile
from sae.data.store import Batch, EmbeddingStore
from sae.data.store_format import torch_dtype

BATCH_IMAGES = 128
"""Images per forward pass, at most."""
_N_NAMED = 3

Rows = NDArray[np.int64]


def with_embeddings(store: EmbeddingStore, device: str | torch.device) -> EmbeddingStore:
    """The store; of a list of images alone one that computes embeddings, by the CLIP it names.

    Raises `UserError` where that CLIP or its weights are others than when the images were listed.
    """
    if not store.info.on_the_fly or isinstance(store, LiveStore):
        return store
    clip = load_clip(store.info.clip, str(device), texts=False)
    require_same_weights(clip, store)
    return LiveStore(store, clip)


class LiveStore(EmbeddingStore):
    """What an `EmbeddingStore` is to those who read it, of images that go through CLIP each time.

    Nothing is kept: memory holds what is asked for, and a batch of images. An image that turns out
    to be damaged behind its header, or has changed, is left out of `batches`; in `read_tokens` the
    other images of the call stand in for it. Above 1% of the images `UserError` is raised with exit
    code 4, unless `allow_skipped`.
    """

    def __init__(
        self,
        listed: EmbeddingStore,
        clip: Clip,
        roots: Mapping[str, Path] | None = None,
        workers: int | None = None,
        follow_links: bool | None = None,
        allow_skipped: bool = False,
    ) -> None:
        """Roots and links are as the list of images has them, where they are not given."""
        super().__init__(listed.path, listed.info, listed.layout)
        self.unreadable: dict[int, str] = {}
        """Rows that could not be read so far, and why."""
        self._clip = clip
        self._allow_skipped = allow_skipped
        follow_links = self._follows_links if follow_links is None else follow_links
        self._files = _Files(self, self._roots if roots is None else roots, follow_links)
        n_workers = default_workers(self.info.n_images) if workers is None else workers
        self._loader = ImageLoader(
            self._files, clip.preprocess, n_workers, self.info.max_pixels, lasting=True
        )

    def batches(self, n_images: int = BATCH_IMAGES, rows: Rows | None = None) -> Iterator[Batch]:
        """All images, or the ascending `rows`, up to `n_images` or 128 at a time."""
        wanted = np.arange(self.info.n_images) if rows is None else np.asarray(rows, dtype=np.int64)
        for found, x in self._embedded(wanted, min(n_images, BATCH_IMAGES)):
            if len(found):
                yield Batch(found, x)

    def read_tokens(self, tokens: Rows, out: Tensor) -> None:
        """As in any store. Tokens of an unreadable image are those of others of this call."""
        t = self.info.tokens_per_image
        rows, place = np.unique(tokens // t), 0
        is_filled = np.zeros(len(tokens), dtype=bool)
        for number, (found, x) in enumerate(self._embedded(rows, BATCH_IMAGES)):
            part = rows[number * BATCH_IMAGES : (number + 1) * BATCH_IMAGES]
            end = int(np.searchsorted(tokens, (part[-1] + 1) * t))
            here = tokens[place:end]
            filled = np.isin(here // t, found)
            images, places = np.searchsorted(found, here[filled] // t), here[filled] % t
            out[place:end][torch.from_numpy(filled)] = x[images, places]
            is_filled[place:end] = filled
            place = end
        missing = np.flatnonzero(~is_filled)
        if len(missing):
            there = np.flatnonzero(is_filled)
            if not len(there):
                raise UserError(
                    f"none of {len(rows)} images can be read: {self._named()}", FAILURES
                )
            out[missing] = out[there[np.arange(len(missing)) % len(there)]]

    def readable(self, rows: Rows) -> Rows:
        """Without those that could not be read when they were asked for."""
        return rows[~np.isin(rows, list(self.unreadable))]

    def image_path(self, row: int) -> Path:
        """Where the image lies. Raises `UserError` when a link leads out of its domain's folder."""
        return self._files[row].path

    def report(self) -> None:
        """Tell with a `Notice` of images that could not be read."""
        if self.unreadable:
            warnings.warn(
                f"{len(self.unreadable)} of {self.info.n_images} images could not be read and were "
                f"left out: {self._named()}",
                Notice,
                stacklevel=2,
            )

    def _read_ascending(self, rows: Rows) -> Tensor:
        shape = (len(rows), self.info.tokens_per_image, self.info.d)
        x, n_done = torch.empty(shape, dtype=torch_dtype(self.info.dtype)), 0
        for found, part in self._embedded(rows, BATCH_IMAGES):
            x[n_done : n_done + len(found)] = part
            n_done += len(found)
        if n_done < len(rows):
            bad = next(row for row in rows.tolist() if row in self.unreadable)
            raise UserError(f"{self.image_path(bad)}: {self.unreadable[bad]}; put it back")
        return x

    def _embedded(self, rows: Rows, at_once: int) -> Iterator[tuple[Rows, Tensor]]:
        """Of every `at_once` rows: those that can be read, and their embeddings (b, t, d)."""
        ids = self.images["image_id"].to_numpy()
        pieces = (rows[first : first + at_once].tolist() for first in range(0, len(rows), at_once))
        for outcomes in self._loader.load(pieces):
            found, pixels = [], []
            for outcome in outcomes:
                row = outcome.candidate
                if isinstance(outcome, Refused):
                    self._note(row, outcome.reason)
                elif outcome.image_id != ids[row]:
                    self._note(row, "it has changed since it was listed")
                else:
                    found.append(row)
                    pixels.append(outcome.pixels)
            x = torch.empty(0, self.info.tokens_per_image, self.info.d)
            if found:
                [x] = embed_batch(self._clip, [self.info], pixels)
            yield np.asarray(found, dtype=np.int64), x

    def _note(self, row: int, reason: str) -> None:
        self.unreadable[row] = reason
        n, n_images = len(self.unreadable), self.info.n_images
        if n > MAX_SKIPPED * n_images and not self._allow_skipped:
            raise UserError(
                f"{n} of {n_images} images could not be read, more than {MAX_SKIPPED:.0%}: "
                f"{self._named()}; add --allow-skipped to go on without them",
                FAILURES,
            )

    def _named(self) -> str:
        some = list(self.unreadable.items())[:_N_NAMED]
        named = ", ".join(f"{self._files[row].path} ({reason})" for row, reason in some)
        more = len(self.unreadable) - len(some)
        return named + (f" and {more} more" if more > 0 else "")


class _Files(Sequence[ImageFile]):
    """The images of a store by row; a path is made when it is asked for."""

    def __init__(
        self, store: EmbeddingStore, roots: Mapping[str, Path], follow_links: bool
    ) -> None:
        images = store.images
        self._paths, self._domains = images["path"].to_numpy(), images["domain"].to_numpy()
        self._roots, self._follow_links = dict(roots), follow_links

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> ImageFile:  # type: ignore[override]
        domain = self._domains[row]
        path = locate(self._roots[domain], self._paths[row], self._follow_links)
        return ImageFile(path, domain, "")
