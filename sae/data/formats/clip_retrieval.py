"""Embeddings as clip-retrieval writes them: img_emb/img_emb_*.npy, and whose they are in
metadata/metadata_*.parquet. They are CLIP's projected image features, each of length 1.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.data.formats.layout import Choice, Labels, Layout
from sae.data.tokens import tokens_named
from sae.untrusted.npy_file import mapped_rows

NAME = "clip-retrieval embeddings"
FOLDER, METADATA = "img_emb", "metadata"
COLUMN = "image_path"
_ARRAY = re.compile(r"img_emb_(\d{1,9})\.npy")
_N_HASHED = 64


def find(path: Path) -> Path | None:
    """The folder of the arrays: `path`, or img_emb in it."""
    for folder in (path, path / FOLDER):
        if folder.is_dir() and any(_ARRAY.fullmatch(file.name) for file in folder.iterdir()):
            return folder
    return None


def read(path: Path, choice: Choice) -> Layout:
    """Raises `UserError` for a number that is missing, arrays of different widths or of no floats,
    and for another layer or tokens than there are.
    """
    if tokens_named(choice.tokens or "cls") != "cls" or choice.layer not in ("", "projected"):
        raise UserError(f"{path} holds one projected embedding an image: no layer, no tokens")
    files = _in_order(path)
    arrays = [_mapped(file) for file in files]
    widths = {array.shape[1] for array in arrays}
    if len(widths) > 1:
        raise UserError(f"{path} holds embeddings of different widths: {sorted(widths)}")
    [d] = widths
    digest = hashlib.sha256(np.array([len(array) for array in arrays], "<i8").tobytes())
    for array in (arrays[0][:_N_HASHED], arrays[-1][-_N_HASHED:]):
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return Layout(
        form=NAME,
        files=files,
        rows=tuple(len(array) for array in arrays),
        stride=1,
        first=0,
        d=d,
        tokens_per_image=1,
        grid=[],
        dtype="float16" if arrays[0].dtype.itemsize == 2 else "float32",
        clip=choice.clip,
        layer="projected",
        tokens="cls",
        fingerprint=digest.hexdigest(),
        vectors=lambda shard: _mapped(files[shard]),
        labels=lambda: Labels([], "name"),
        paths=functools.partial(_paths, files),
    )


def _in_order(folder: Path) -> tuple[Path, ...]:
    matches = ((_ARRAY.fullmatch(file.name), file) for file in folder.iterdir())
    found = {int(match[1]): file for match, file in matches if match}
    lacking = next((n for n in range(len(found)) if n not in found), None)
    if lacking is not None:
        raise UserError(f"{folder} has no img_emb_{lacking}.npy; fetch it")
    return tuple(found[n] for n in sorted(found))


def _mapped(file: Path) -> NDArray[Any]:
    return mapped_rows(file, "embeddings are (images, d)")


def _paths(files: tuple[Path, ...]) -> list[str]:
    """`image_path` of every image, in the order of the arrays."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths: list[str] = []
    for file in files:
        number = file.stem.rpartition("_")[2]
        table = file.parent.parent / METADATA / f"{METADATA}_{number}.parquet"
        try:
            here = pq.read_table(table, columns=[COLUMN])[COLUMN].to_pylist()
        except FileNotFoundError:
            raise UserError(f"{table} is missing, which says whose {file.name} is") from None
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{table} does not say whose {file.name} is: {reason}") from None
        if len(here) != len(_mapped(file)):
            raise UserError(
                f"{table} is of {len(here)} images, {file.name} of {len(_mapped(file))}"
            )
        paths += map(str, here)
    return paths
