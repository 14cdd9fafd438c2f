"""A store and an SAE -> activations of whole images, and of chosen (image, latent) pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.evidence.stream.top_k import Acts, Ints, concatenate
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from sae.model.sparsity import Codes

_MAX_CELLS, _MAX_CELLS_OF_GPU = 1 << 23, 1 << 26
"""Tokens times latents at once: 32 and 256 MB of pre-activations. Above 32 MB the C library asks
the system for new pages for each batch, which costs a CPU more time than the product itself.
"""
_MAX_IMAGES = 4096


class Encoder(Protocol):
    """Says which latents an embedding has: an `SAE`, or latents that were written down."""

    @property
    def config(self) -> SAEConfig: ...
    @property
    def n_latents(self) -> int: ...
    @property
    def W_dec(self) -> Tensor: ...  # (n_latents, width of what tells near latents from far ones)
    def encode(self, x: Tensor) -> Codes: ...
    def state_dict(self) -> Mapping[str, Tensor]: ...


class ImageActs(NamedTuple):
    """Active (image, latent) pairs of a batch, ordered by image, then latent."""

    images: Ints  # (n,), place in the batch
    latents: Ints  # (n,)
    acts: Acts  # (n,), > 0: of the image's tokens as the pooling says
    n_tokens: Ints  # (n,), > 0: tokens that are active


class Seen(NamedTuple):
    """One batch of images as the SAE sees it."""

    rows: Ints  # (b,), global rows, ascending
    images: ImageActs
    acts: Tensor  # (b, t, k)
    latents: Tensor  # (b, t, k)


class Pairs(NamedTuple):
    """(image, latent) pairs, in any order."""

    rows: Ints  # (n,)
    latents: Ints  # (n,)


class Active(NamedTuple):
    """(image, latent) pairs that are active, in any order."""

    rows: Ints  # (n,)
    latents: Ints  # (n,)
    acts: Acts  # (n,), > 0


class Look(NamedTuple):
    """Answers of `look_again`."""

    acts: Acts  # (n,) activation of each asked pair, 0 where silent
    heat: NDArray[np.uint8]  # (m, patches) map of each heat pair, 255 = the image's largest token
    peaks: Ints  # (m,) the most active patch of each heat pair, -1 where none is active
    active: Active  # every active pair of the drawn rows


@dataclass(frozen=True)
class EncodedStore:
    """A store as an SAE sees it, batch by batch."""

    store: EmbeddingStore
    model: Encoder
    device: torch.device
    n_images: int | None = None
    """A batch; changes speed and memory, not the result. None: as many as fit the SAE."""
    pool: str = "max"
    """One of `POOLS`: an image's activation of its tokens'."""
    part: tuple[int, int] = (0, 1)
    """(r, n): of the batches every n-th from r on; the others' are other processes'."""

    @classmethod
    def of(
        cls,
        store: EmbeddingStore,
        model: Encoder,
        device: str | torch.device,
        n_images: int | None = None,
        pool: str = "max",
        part: tuple[int, int] = (0, 1),
    ) -> EncodedStore:
        """Move the model, if it has weights, to the device."""
        device = torch.device(device)
        model = model.to(device).eval() if isinstance(model, SAE) else model
        return cls(store, model, device, n_images, pool, part)

    def batches(self, rows: Ints | None = None, progress: Progress | None = None) -> Iterator[Seen]:
        """Run the SAE over this part of the store (or of ascending `rows` of it); `progress` counts
        images, of all parts as if they were as far.
        """
        t, n_latents = self.store.info.tokens_per_image, self.model.n_latents
        most = _MAX_CELLS if self.device.type == "cpu" else _MAX_CELLS_OF_GPU
        n_images = self.n_images or max(1, min(_MAX_IMAGES, most // (n_latents * t)))
        n_done, n_rows = 0, self.store.info.n_images if rows is None else len(rows)
        for batch in self.store.batches(n_images, rows=self._mine(rows, n_images)):
            with torch.inference_mode():
                codes = self.model.encode(batch.x.to(self.device).flatten(0, 1).float())
                acts = codes.acts.reshape(-1, t, codes.acts.shape[1])
                latents = codes.latents.reshape(acts.shape)
                images = reduce_to_images(acts, latents, n_latents, self.pool)
            yield Seen(batch.rows, images, acts, latents)
            n_done += len(batch.rows) * self.part[1]
            if progress is not None:
                progress(min(n_done, n_rows), n_rows)

    def _mine(self, rows: Ints | None, n_images: int) -> Ints | None:
        """Of the rows those of this part's batches, which are the very batches of one process."""
        r, n = self.part
        if n == 1:
            return rows
        rows = np.arange(self.store.info.n_images) if rows is None else rows
        is_mine = np.arange(len(rows)) // n_images % n == r
        return np.asarray(rows[is_mine])


def reduce_to_images(acts: Tensor, latents: Tensor, n_latents: int, pool: str = "max") -> ImageActs:
    """Reduce codes (b, t, k) to one activation per image and latent.

    `pool` takes the max, mean or sum over all t tokens, or that of the first, which is CLS. What is
    not above 0 counts as 0.
    """
    n_tokens = acts.shape[1]
    if pool == "cls":
        acts, latents = acts[:, :1], latents[:, :1]
    image, token, place = torch.nonzero(acts > 0, as_tuple=True)
    pairs = image * n_latents + latents[image, token, place]
    distinct, where, counts = torch.unique(pairs, return_inverse=True, return_counts=True)
    pooled = torch.zeros(len(distinct), dtype=torch.float32, device=acts.device)
    of_tokens = acts[image, token, place].float()
    if pool in ("mean", "sum"):
        pooled.index_add_(0, where, of_tokens)
        pooled /= n_tokens if pool == "mean" else 1
    else:
        pooled.scatter_reduce_(0, where, of_tokens, "amax")
    flat = distinct.cpu().numpy()
    images, found = flat // n_latents, flat % n_latents
    return ImageActs(images, found, pooled.cpu().numpy(), counts.cpu().numpy())


def look_again(
    encoded: EncodedStore, asked: Pairs, heat: Pairs, drawn: Ints, progress: Progress | None = None
) -> Look:
    """Read only the rows named, once, and answer all three questions about them.

    `asked`: how active is the latent on the image? `heat`: where on its patches? `drawn`: which
    latents are active on these rows at all? Memory grows with the questions, not with the store.
    """
    rows = np.unique(np.concatenate([asked.rows, heat.rows, drawn]))
    asked_order, heat_order = np.argsort(asked.rows), np.argsort(heat.rows)
    acts = np.zeros(len(asked.rows), np.float32)
    n_latents, grid = encoded.model.n_latents, encoded.store.info.grid
    n_patches = math.prod(grid) if grid else 0
    maps = np.zeros((len(heat.rows), n_patches), np.uint8)
    peaks = np.full(len(heat.rows), -1)
    nothing = np.zeros(0, np.int64)
    active = [Active(nothing, nothing, np.zeros(0, np.float32))]
    for seen in encoded.batches(rows, progress):
        here = _find_rows(asked.rows, asked_order, seen.rows)
        acts[here] = _find_acts(seen, asked.rows[here], asked.latents[here], n_latents)
        here = _find_rows(heat.rows, heat_order, seen.rows)
        maps[here], peaks[here] = draw_heat(
            seen, Pairs(heat.rows[here], heat.latents[here]), n_patches
        )
        active.append(_find_active(seen, drawn))
    return Look(acts, maps, peaks, concatenate(active))


def _find_rows(rows: Ints, order: Ints, batch_rows: Ints) -> Ints:
    """Which places of `rows` lie in this batch; `order` sorts `rows`."""
    first, last = np.searchsorted(rows, [batch_rows[0], batch_rows[-1] + 1], sorter=order)
    return order[first:last]


def _find_acts(seen: Seen, rows: Ints, latents: Ints, n_latents: int) -> Acts:
    if not len(seen.images.acts):
        return np.zeros(len(rows), np.float32)
    known = seen.images.images * n_latents + seen.images.latents  # ascending
    wanted = np.searchsorted(seen.rows, rows) * n_latents + latents
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[places] == wanted, seen.images.acts[places], np.float32(0))


def draw_heat(seen: Seen, pairs: Pairs, n_patches: int) -> tuple[NDArray[np.uint8], Ints]:
    """Maps (n, patches) of the pairs, and the most active patch of each, the first of equal ones.

    A leading CLS token counts for the scale, unseen.
    """
    rows, latents = pairs
    maps, peaks = np.zeros((len(rows), n_patches), np.uint8), np.full(len(rows), -1)
    for start in range(0, len(rows), 1024):  # bounds the (pairs, t, k) block
        part = slice(start, start + 1024)
        images = torch.from_numpy(np.searchsorted(seen.rows, rows[part])).to(seen.acts.device)
        wanted = torch.from_numpy(latents[part]).to(seen.acts.device)
        hits = seen.latents[images] == wanted[:, None, None]
        token_acts = (seen.acts[images] * hits).sum(2)  # (n, t)
        scaled = 255 * token_acts / token_acts.amax(1, keepdim=True).clamp_min(1e-12)
        maps[part] = scaled[:, -n_patches:].round().to(torch.uint8).cpu().numpy()
        patches = token_acts[:, -n_patches:].cpu().numpy()
        peaks[part] = np.where(patches.max(1) > 0, patches.argmax(1), -1)
    return maps, peaks


def _find_active(seen: Seen, drawn: Ints) -> Active:
    rows = seen.rows[seen.images.images]
    here = np.isin(rows, drawn)
    return Active(rows[here], seen.images.latents[here], seen.images.acts[here])
