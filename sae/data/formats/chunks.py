"""Embeddings as patrikwolf/ttt_theory writes them: batch_%05d.pt with `embeddings` and `labels`.

Or one file with the same two, as its training_data.pt. Chunks follow each other by number.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.data.formats.layout import Choice, Labels, Layout
from sae.data.tokens import tokens_named

if TYPE_CHECKING:
    from torch import Tensor

NAME = "embedding chunks"
_CHUNK_NAME = re.compile(r"batch_(\d{1,9})\.pt")
_HALF = "torch.float16"
_N_HASHED = 64


def find(path: Path) -> Path | None:
    """The path, when it is a folder of chunks or a single .pt file."""
    if path.is_file():
        return path if path.suffix == ".pt" and _is_chunk(_read(path)) else None
    return path if path.is_dir() and any(map(_number_of, path.iterdir())) else None


def read(path: Path, choice: Choice) -> Layout:
    """Look at the first and the last chunk, and at the sizes of all.

    A chunk between them that has the first one's size has its shape; that is checked when it is
    read. Raises `UserError` when a number is missing or the two do not fit together.
    """
    if tokens_named(choice.tokens or "cls") != "cls":
        raise UserError(f"{path} holds one embedding an image; leave tokens {choice.tokens!r} out")
    files = (path,) if path.is_file() else _in_order(path)
    first, last = _chunk(files[0]), _chunk(files[-1])
    size, n = files[0].stat().st_size, len(first["embeddings"])
    rows = [n if f.stat().st_size == size else len(_chunk(f)["embeddings"]) for f in files[:-1]]
    rows.append(len(last["embeddings"]))
    d = first["embeddings"].shape[1]
    return Layout(
        form=NAME,
        files=files,
        rows=tuple(rows),
        stride=1,
        first=0,
        d=d,
        tokens_per_image=1,
        grid=[],
        dtype="float16" if str(first["embeddings"].dtype) == _HALF else "float32",
        clip=choice.clip,
        layer=choice.layer or "projected",
        tokens="cls",
        fingerprint=_fingerprint(rows, first["embeddings"], last["embeddings"]),
        vectors=functools.partial(_vectors, files, tuple(rows), d),
        labels=functools.partial(_labels, files),
    )


def _number_of(file: Path) -> re.Match[str] | None:
    return _CHUNK_NAME.fullmatch(file.name)


def _read(file: Path) -> Any:
    from sae.untrusted.torch_file import torch_dict  # torch: most stores do without

    return torch_dict(file)


def _is_chunk(held: Any) -> bool:
    from torch import Tensor

    return isinstance(held, dict) and isinstance(held.get("embeddings"), Tensor)


def _in_order(folder: Path) -> tuple[Path, ...]:
    found = {int(m[1]): file for file in folder.iterdir() if (m := _number_of(file))}
    first = min(found)
    lacking = next((n for n in range(first, first + len(found)) if n not in found), None)
    if lacking is not None:
        raise UserError(f"{folder / f'batch_{lacking:05d}.pt'} is missing; fetch it")
    return tuple(found[n] for n in sorted(found))


def _chunk(file: Path) -> dict[str, Any]:
    held = _read(file)
    if not _is_chunk(held):
        raise UserError(f"{file} holds no tensor 'embeddings'")
    x = held["embeddings"]
    if x.ndim != 2 or 0 in x.shape or not x.is_floating_point():
        raise UserError(
            f"{file}: embeddings are {tuple(x.shape)} {x.dtype}, not (images, d) floats"
        )
    return dict(held)


def _vectors(files: tuple[Path, ...], rows: tuple[int, ...], d: int, shard: int) -> NDArray[Any]:
    x = _chunk(files[shard])["embeddings"]
    if tuple(x.shape) != (rows[shard], d):
        raise UserError(f"{files[shard]} holds {tuple(x.shape)}, not {(rows[shard], d)}")
    kept: NDArray[Any] = (x if str(x.dtype) == _HALF else x.float()).contiguous().numpy()
    return kept


def _labels(files: tuple[Path, ...]) -> Labels:
    """The classes' numbers; none at all when one chunk has none."""
    from torch import Tensor

    values: list[str] = []
    for file in files:
        chunk = _chunk(file)
        labels = chunk.get("labels")
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            return Labels([], "number")
        if labels.shape != chunk["embeddings"].shape[:1]:
            raise UserError(
                f"{file} has labels {tuple(labels.shape)} for {len(chunk['embeddings'])} embeddings"
            )
        values += map(str, labels.tolist())
    return Labels(values, "number")


def _fingerprint(rows: list[int], *parts: Tensor) -> str:
    import torch

    digest = hashlib.sha256(np.array(rows, "<i8").tobytes())
    for part in (whole[:_N_HASHED] for whole in parts):
        digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
        digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
