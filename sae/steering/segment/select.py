"""Codes and classes of patches -> for each class the latent that tells its patches best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, Codes
from sae.steering.segment.masks import IGNORED

THRESHOLDS = (0.0, 0.1, 0.3, 1.0)
"""Shares of a latent's maximum from which on a patch counts as its class (saev's)."""
BATCH_TOKENS = 1 << 14


class ClassLatent(NamedTuple):
    """The latent of a class."""

    number: int
    """Of the class, in the masks."""
    latent: int
    threshold: float
    """Share of the maximum."""
    most: float
    """The latent's maximum on the training part."""
    f1: float
    """On the training part."""


class PatchFigures(NamedTuple):
    """What is counted of the patches of some images."""

    most: NDArray[np.float32]  # (n_latents,) largest activation, at least 0
    n_active: NDArray[np.int64]  # (n_latents,) patches with an activation above 0
    n_patches: int


@torch.no_grad()
def patch_codes(
    model: SAE, store: EmbeddingStore, rows: NDArray[np.int64], device: torch.device
) -> Iterator[tuple[NDArray[np.int64], Codes]]:
    """Some ascending rows at a time, with the codes of their patches alone, image by image."""
    part = slice(1, None) if store.info.tokens == "all" else slice(None)
    for batch in store.batches(max(1, BATCH_TOKENS // store.info.tokens_per_image), rows):
        yield batch.rows, model.encode(batch.x[:, part].flatten(0, 1).to(device).float())


def measure_latents(
    model: SAE, store: EmbeddingStore, rows: NDArray[np.int64], device: torch.device
) -> PatchFigures:
    """Maxima and frequencies over the patches of these rows."""
    most = torch.zeros(model.n_latents, device=device)
    n_active = torch.zeros(model.n_latents, dtype=torch.int64, device=device)
    n = 0
    for _, codes in patch_codes(model, store, rows, device):
        most.scatter_reduce_(0, codes.latents.flatten(), codes.acts.flatten(), "amax")
        active = codes.latents[codes.acts > 0]
        n_active += torch.bincount(active, minlength=model.n_latents)
        n += len(codes.acts)
    return PatchFigures(most.cpu().numpy(), n_active.cpu().numpy(), n)


def choose_latents(
    model: SAE,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    truth: NDArray[np.uint8],
    classes: Sequence[int],
    figures: PatchFigures,
    max_frequency: float,
    device: torch.device,
) -> list[ClassLatent]:
    """For each class the latent and threshold of the best F1 on the patches of `rows`.

    `truth` (len(rows), patches) are the patches' classes; those ignored count nowhere. Only latents
    that are active on a smaller share of the patches than `max_frequency` are asked. A patch counts
    as the class where the activation is above 0 and at least the threshold times the maximum. Of
    equal ones the lowest threshold, then the lowest number.
    """
    allowed = rare_latents(figures, max_frequency)
    hits, named = count_hits(model, store, rows, truth, classes, figures.most, device)
    n_class = np.array([(truth == number).sum() for number in classes])
    chosen = []
    for place, number in enumerate(classes):
        f1 = np.where(allowed, f1_of(hits[:, place], named, n_class[place]), -1.0)
        threshold, latent = np.unravel_index(f1.argmax(), f1.shape)
        most, best = float(figures.most[latent]), float(f1[threshold, latent])
        chosen.append(ClassLatent(number, int(latent), THRESHOLDS[threshold], most, best))
    return chosen


def f1_of(hits: NDArray[np.int64], named: NDArray[np.int64], n_class: int) -> NDArray[np.float64]:
    """F1 of patches that are named a class, of which `hits` are, where the class has `n_class`."""
    return 2 * hits / np.maximum(named + n_class, 1)


def rare_latents(figures: PatchFigures, max_frequency: float) -> NDArray[np.bool_]:
    """Which latents are active, but on fewer than this share of the patches."""
    rare = (figures.n_active > 0) & (figures.n_active < max_frequency * figures.n_patches)
    if not rare.any():
        raise UserError(
            f"no latent is active on fewer than {max_frequency:g} of the patches, which is "
            "--max-frequency; raise it, or take a wider SAE"
        )
    return rare


def count_hits(
    model: SAE,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    truth: NDArray[np.uint8],
    classes: Sequence[int],
    most: NDArray[np.float32],
    device: torch.device,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By threshold and latent, patches that reach it: of each class, and of all.

    hits (thresholds, classes, n_latents) and named (thresholds, n_latents).
    """
    n_latents, n_classes = model.n_latents, len(classes)
    place = torch.full((256,), n_classes)  # the last place: of another class
    place[torch.tensor(list(classes))] = torch.arange(n_classes)
    place[IGNORED] = n_classes + 1
    place, least = place.to(device), torch.from_numpy(most).to(device)
    size = (n_classes + 2) * n_latents
    counts = torch.zeros(len(THRESHOLDS), size, dtype=torch.int64, device=device)
    starts = {row: number for number, row in enumerate(rows.tolist())}
    for batch, codes in patch_codes(model, store, rows, device):
        first = starts[int(batch[0])]
        labels = torch.from_numpy(truth[first : first + len(batch)].astype(np.int64).ravel())
        cells = place[labels.to(device)][:, None] * n_latents + codes.latents
        for number, threshold in enumerate(THRESHOLDS):
            reached = (codes.acts > 0) & (codes.acts >= threshold * least[codes.latents])
            counts[number].index_add_(0, cells[reached], torch.ones_like(cells[reached]))
    table = counts.view(len(THRESHOLDS), n_classes + 2, n_latents).cpu().numpy()
    return table[:, :n_classes], table[:, : n_classes + 1].sum(1)
