"""A store, an SAE and some rows -> a sparse table of activations, a row an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.evidence.dense_latents import open_subject
from interp.evidence.stream.activations import EncodedStore
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore

if TYPE_CHECKING:
    from pathlib import Path

Sparse = Any
"""A `scipy.sparse.csr_array` of float32, which has no types of its own."""


def read_activations(
    sae: Path,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    pool: str,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Sparse:
    """(len(rows), n_latents) activations of the store's images `rows`, in the order given.

    `sae` is the folder of the SAE; where it is missing the store holds latents that were written
    down. Memory grows with the pairs that are active, 12 bytes each. Raises `UserError` where store
    and SAE do not fit.
    """
    from scipy.sparse import coo_array

    here = open_subject(sae, store) if sae.exists() else open_subject(store.path, None)
    encoded = EncodedStore.of(*here, device, pool=pool)
    order = np.argsort(rows, kind="stable")
    found: list[tuple[NDArray[Any], ...]] = []
    done = 0
    for seen in encoded.batches(rows[order], progress):
        place = order[done + seen.images.images]
        found.append((place, seen.images.latents, seen.images.acts))
        done += len(seen.rows)
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    places, latents, acts = (np.concatenate(column) for column in zip(nothing, *found, strict=True))
    shape = (len(rows), encoded.model.n_latents)
    return coo_array((acts, (places, latents)), shape=shape).tocsr()
