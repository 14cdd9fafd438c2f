"""Decoder rows -> a place on a map for each latent: map.parquet, which other map tools open too.

PCA to 50 numbers, then t-SNE. Of many latents t-SNE places some, and the others come to lie where
the nearest of these are: its time grows faster than the number of latents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sae.core.files import replacing

FILE = "map.parquet"
N_COMPONENTS = 50
N_PLACED = 2000
"""Latents that t-SNE places itself."""
N_GUIDES = 3
"""Placed latents that one of the others lies between."""
LEAST = 8
"""Fewer living latents make no map."""
MOST_CLUSTERS = 12
"""As many as colours that can be told apart."""
SIDE = 10_000
"""The page's places are whole numbers from 0 to this."""
N_STEPS, ANGLE = 300, 0.8
"""Of t-SNE. 500 and its default of .5 take twice as long and keep neighbours as well: of 24,576
directions .703 of trustworthiness at 15 in the place of .700."""
METHOD = f"PCA {N_COMPONENTS}, t-SNE of {N_PLACED} at most in {N_STEPS} steps, k-means"
_BLOCK = 2048
_SEED = 0
Floats = NDArray[np.float32]


class Places(NamedTuple):
    """Of every latent; NaN and -1 of dead ones, which have no place."""

    x: Floats
    y: Floats
    cluster: NDArray[np.int64]
    """Groups of like directions, numbered from the largest on."""


def find_places(
    decoder: Floats | None, alive: NDArray[np.bool_], kept: Path, identity: str
) -> Places | None:
    """Places of the latents of an SAE (`identity`), from the map `kept` where it is of the same one
    and of this method; None without a decoder, or where hardly a latent lives."""
    if decoder is None or int(alive.sum()) < LEAST:
        return None
    return _read(kept, identity, alive) or place(decoder, alive)


def place(decoder: Floats, alive: NDArray[np.bool_]) -> Places:
    """Equal decoders give equal places."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    norms = np.linalg.norm(decoder[alive], axis=1, keepdims=True)
    unit = (decoder[alive] / np.maximum(norms, 1e-12)).astype(np.float32)
    n, d = unit.shape
    solver = "covariance_eigh" if n >= d else "full"
    points = PCA(min(N_COMPONENTS, n - 1, d), svd_solver=solver).fit_transform(unit)
    n_clusters = int(np.clip(round(np.sqrt(n / 2)), 2, MOST_CLUSTERS))
    groups = MiniBatchKMeans(n_clusters, random_state=_SEED, n_init=3).fit_predict(points)
    order = np.argsort(-np.bincount(groups, minlength=n_clusters), kind="stable")
    flat = _flatten(points.astype(np.float32))
    found = Places(*_empty(len(alive)))
    found.x[alive], found.y[alive] = flat[:, 0], flat[:, 1]
    found.cluster[alive] = np.argsort(order)[groups]
    return found


def _empty(n: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    nothing = np.full((2, n), np.nan, np.float32)
    return nothing[0], nothing[1], np.full(n, -1, np.int64)


def _flatten(points: Floats) -> Floats:
    """(n, c) -> (n, 2), each axis within 0..1."""
    from sklearn.manifold import TSNE

    chosen = np.sort(np.random.default_rng(_SEED).permutation(len(points))[:N_PLACED])
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    placing = TSNE(
        init="pca",
        perplexity=perplexity,
        angle=ANGLE,
        random_state=_SEED,
        max_iter=N_STEPS,
        n_jobs=1,
    )
    guides = placing.fit_transform(points[chosen])
    flat = np.empty((len(points), 2), np.float32)
    for start in range(0, len(points), _BLOCK):
        part = points[start : start + _BLOCK]
        squares = (part**2).sum(1)[:, None] + (points[chosen] ** 2).sum(1)
        far = np.maximum(squares - 2 * part @ points[chosen].T, 0)
        near = np.argpartition(far, min(N_GUIDES, len(chosen)) - 1, axis=1)[:, :N_GUIDES]
        weights = 1 / (np.take_along_axis(far, near, 1) + 1e-6)
        weights /= weights.sum(1, keepdims=True)
        flat[start : start + _BLOCK] = (guides[near] * weights[:, :, None]).sum(1)
    flat[chosen] = guides
    low, high = flat.min(0), flat.max(0)
    return np.asarray((flat - low) / np.maximum(high - low, 1e-9), np.float32)


def write_map(folder: Path, places: Places, rows: Sequence[dict[str, Any]], identity: str) -> None:
    """map.parquet in a gallery's folder: a row for each latent that has a place."""
    ids = np.flatnonzero(places.cluster >= 0)
    images = [rows[latent]["thumb"] for latent in ids.tolist()]
    scores = [rows[latent]["score"] for latent in ids.tolist()]
    columns = {
        "latent": ids.astype(np.int32),
        "x": places.x[ids],
        "y": places.y[ids],
        "cluster": places.cluster[ids].astype(np.int16),
        "label": [rows[latent]["label"] or "" for latent in ids.tolist()],
        "score": [None if score is None else score / 10_000 for score in scores],
        "thumbnail": [f"thumbs/{i[:2]}/{i}.webp" if i else "" for i in images],
    }
    about = {"method": METHOD, "sae_identity": identity}
    table = pa.table(columns).replace_schema_metadata({"map": json.dumps(about)})
    with replacing(folder / FILE) as part:
        pq.write_table(table, part, compression="zstd")


def page_map(places: Places) -> dict[str, Any]:
    """As data/map.js has it: whole numbers, null where a latent has no place."""
    axes = (np.where(places.cluster >= 0, axis, 0) for axis in (places.x, places.y))
    x, y = ([round(SIDE * value) for value in axis.tolist()] for axis in axes)
    known = (places.cluster >= 0).tolist()
    return {
        "x": [value if here else None for value, here in zip(x, known, strict=True)],
        "y": [value if here else None for value, here in zip(y, known, strict=True)],
        "cluster": places.cluster.tolist(),
        "side": SIDE,
        "method": METHOD,
    }


def _read(path: Path, identity: str, alive: NDArray[np.bool_]) -> Places | None:
    """The places of an earlier gallery; None where they are of another SAE or cannot be read."""
    try:
        table = pq.read_table(path, columns=["latent", "x", "y", "cluster"])
        about = json.loads((table.schema.metadata or {}).get(b"map", b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return None
    if about != {"method": METHOD, "sae_identity": identity}:
        return None
    ids = table["latent"].to_numpy()
    if not np.array_equal(ids, np.flatnonzero(alive)):
        return None
    x, y, cluster = (table[name].to_numpy() for name in ("x", "y", "cluster"))
    if not (np.isfinite(x) & np.isfinite(y)).all():
        return None
    found = Places(*_empty(len(alive)))
    found.x[ids], found.y[ids], found.cluster[ids] = x, y, cluster
    return found
