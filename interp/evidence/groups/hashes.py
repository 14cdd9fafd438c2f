"""The images of a store -> a perceptual hash of each, from pixels that are read once.

Hashes are kept in `hashes.parquet`: in the store, where all runs find them, or in the run where the
store is another lab's, a list of images, or cannot be written.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from interp.evidence.stream.top_k import Ints, Keys, splitmix64
from interp.evidence.tables import write_table
from sae.core.errors import Notice, UserError
from sae.core.lock import hold
from sae.core.progress import Progress
from sae.data.images import BadImage, decode, read_known
from sae.data.store import EmbeddingStore
from sae.data.table import Kind, read_table

FILE = "hashes.parquet"
COLUMNS: dict[str, Kind] = {"image_id": "text", "hash": "whole"}
_AT_ONCE = 256
"""Images on the way."""
_KEEP_EVERY = 10_000
"""Images after which what was hashed is written down: a killed command goes on from there."""
_N_TRIED = 8
"""Images of a domain that are looked for before it counts as out of reach."""
_SIDE = 32
"""Pixels a side of what is hashed, as imagehash has it."""
_FLAT = 1.0
"""Deviation in grey levels below which an image is of one colour."""


class Hashes(NamedTuple):
    """A hash of every image that can be read."""

    values: Keys  # (n_images,) 64 bits, 0 where there is none
    known: NDArray[np.bool_]  # (n_images,) whether there is one


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that near-duplicates of an RGB image nearly share: imagehash's pHash (signs of the
    lowest frequencies about their median).

    pHash sees nothing in an image of one colour; such a one has a hash of its colour.
    """
    import imagehash

    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if np.asarray(grey).std() >= _FLAT:
        return int.from_bytes(np.packbits(imagehash.phash(grey).hash).tobytes())
    r, g, b = (int(level) >> 3 for level in np.asarray(image).reshape(-1, 3).mean(0))
    return int(splitmix64(np.array([r << 10 | g << 5 | b], np.uint64))[0])


def read_hashes(store: EmbeddingStore, run_dir: Path, progress: Progress | None = None) -> Hashes:
    """The hash of each image of the store; an image that cannot be read, or has changed, has none.

    `progress` counts the images that are not in the file yet.
    """
    files = _files(store, run_dir)
    kept = {name: h for file in files for name, h in _read_file(file).items()}
    ids = store.images["image_id"].to_numpy(object)
    new = np.array([row for row, name in enumerate(ids) if name not in kept], np.int64)
    new = _within_reach(store, new)
    n_written = len(kept)
    try:
        for start in range(0, len(new), _AT_ONCE):
            rows = new[start : start + _AT_ONCE].tolist()
            kept |= {ids[row]: value for row, value in _hash_rows(store, rows)}
            if progress is not None:
                progress(start + len(rows), len(new))
            if len(kept) - n_written >= _KEEP_EVERY:
                n_written = _keep(files, kept)
    finally:
        if len(kept) > n_written:
            _keep(files, kept)
    known = np.array([name in kept for name in ids], bool)
    return Hashes(np.array([kept.get(name, 0) for name in ids], np.uint64), known)


def _files(store: EmbeddingStore, run_dir: Path) -> list[Path]:
    """Where hashes may be kept, the best place last."""
    is_lasting = not store.info.shards and not store.info.on_the_fly
    is_ours = is_lasting and (store.path / "store.json").exists()
    return [run_dir / FILE, *([store.path / FILE] if is_ours else [])]


def _read_file(file: Path) -> dict[str, int]:
    if file.exists():
        with suppress(UserError):  # damaged: the images are read again
            table = read_table(file, COLUMNS, "")
            return dict(zip(table["image_id"].to_pylist(), table["hash"].to_pylist(), strict=True))
    return {}


def _keep(files: list[Path], kept: dict[str, int]) -> int:
    """Write all hashes to the best of the files that can be written; how many they are."""
    names = sorted(kept)
    values = pa.array([kept[name] for name in names], pa.uint64())
    table = pa.table({"image_id": pa.array(names, pa.string()), "hash": values})
    for file in reversed(files):
        with suppress(UserError):  # a store may be of a disk that is read-only
            with closing(hold(file.with_suffix(".lock"), wait=10.0)):
                write_table(file, table)
            break
    return len(kept)


def _within_reach(store: EmbeddingStore, rows: Ints) -> Ints:
    """Without the images of a domain whose folder is not known, or is gone; that is said."""
    domains = store.images["domain"].to_numpy()[rows]
    unknown: dict[str, str] = {}
    for domain in np.unique(domains).tolist():
        tried = rows[domains == domain][:_N_TRIED].tolist()
        said = [why for row in tried if (why := _why_unknown(store, row))]
        if len(said) == len(tried):
            unknown[domain] = said[0]
    if unknown:
        told = f"near-duplicates were not looked for among the images of {', '.join(unknown)}"
        warnings.warn(f"{told}: {next(iter(unknown.values()))}", Notice, stacklevel=2)
    return rows[~np.isin(domains, list(unknown))]


def _why_unknown(store: EmbeddingStore, row: int) -> str:
    try:
        store.image_path(row)
    except UserError as error:
        return str(error)
    return ""


def _hash_rows(store: EmbeddingStore, rows: list[int]) -> list[tuple[int, int]]:
    """Row and hash of those that can be read."""
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        found = zip(rows, pool.map(lambda row: _hash_row(store, row), rows), strict=True)
        return [(row, value) for row, value in found if value is not None]


def _hash_row(store: EmbeddingStore, row: int) -> int | None:
    image = store.images.iloc[row]
    try:
        data = read_known(store.image_path(row), str(image["image_id"]))
        return perceptual_hash(decode(data, store.info.max_pixels))
    except (BadImage, UserError):
        return None
