"""A store, an SAE and some rows -> a sparse table of activations, a row an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.evidence.dense_latents import open_subject
from interp.evidence.stream.activations import EncodedStore
from sae.core.errors import UserError
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
    and SAE do not fit, and where images that are embedded when they are asked for cannot be read.
    """
    from scipy.sparse import coo_array

    here = open_subject(sae, store) if sae.exists() else open_subject(store.path, None)
    encoded = EncodedStore.of(*here, device, pool=pool)
    order = np.argsort(rows, kind="stable")
    ascending, is_seen = rows[order], np.zeros(len(rows), np.bool_)
    found: list[tuple[NDArray[Any], ...]] = []
    for seen in encoded.batches(ascending, progress):
        at = np.searchsorted(ascending, seen.rows)
        is_seen[at] = True
        found.append((order[at[seen.images.images]], seen.images.latents, seen.images.acts))
    if not is_seen.all():
        missing = ascending[~is_seen]
        raise UserError(
            f"{len(missing)} of {len(rows)} images of {store.path} cannot be read, the first of "
            f"them {store.image_path(int(missing[0]))}; put them back"
        )
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    places, latents, acts = (np.concatenate(column) for column in zip(nothing, *found, strict=True))
    shape = (len(rows), encoded.model.n_latents)
    return coo_array((acts, (places, latents)), shape=shape).tocsr()
