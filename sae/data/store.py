"""The on-disk form of embeddings. Never imports open_clip.

store/
    store.json             what this is (`StoreInfo`); written last: without it, unfinished
    images.parquet         one line per row: image_id, path, domain, label, width, height
    skipped.csv            path, domain, reason of every file that gave no embedding
    plan.json              the settings (store_writer.py); a run that goes on must have the same
    00000.safetensors      x: (images, t, d), raw embeddings; CLS is token 0 when tokens = all

Other labs' embeddings are stores too, read where they lie: interchange/stores.py.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sae.core.errors import UserError
from sae.core.files import read_config

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Source:
    """Which vectors of which model."""

    clip: str
    layer: str
    """"projected", or a block's number, never negative."""
    tokens: Literal["cls", "patch", "all"]


@dataclass(frozen=True)
class StoreInfo:
    """store.json."""

    format: int
    clip: str
    clip_sha: str
    layer: str
    tokens: str
    dtype: str
    d: int
    tokens_per_image: int
    grid: list[int]
    """[h, w] of the patches; [] without patches."""
    n_images: int
    n_skipped: int
    """Lines of skipped.csv: unreadable files and duplicates."""
    shard_rows: list[int]
    roots: dict[str, str]
    """Each domain's folder of images, relative to the store's folder."""
    identity: str
    """sha256 over model, layer, tokens, dtype and the image ids in order."""
    version: str
    shards: str = ""
    """Folder or file of another lab's embeddings, relative to the store's; "": they are here."""
    shards_sha256: str = ""
    """What tells those from others, as 64 hex digits."""


class Skipped(NamedTuple):
    """One file that gave no embedding."""

    path: str  # posix, relative to the domain's root
    domain: str
    reason: str


class Batch(NamedTuple):
    """Some images of a store."""

    rows: NDArray[np.int64]  # (b,) global rows
    x: Tensor  # (b, t, d) in the stored type


class EmbeddingStore:
    """A finished store, read-only. Only the list of images is held in memory, once asked for.

    The shards are mapped when first read, and stay so.
    """

    def __init__(self, path: Path, info: StoreInfo) -> None:
        self.path = path
        self.info = info
        self._starts = np.cumsum([0, *info.shard_rows])  # (n_shards + 1,) first row of each shard
        self._shards: dict[int, NDArray[Any]] = {}

    @classmethod
    def open(cls, path: str | Path) -> EmbeddingStore:
        """A store of ours, or a folder of other labs' embeddings, e.g. of saev's shards.

        Raises `UserError` when it is unfinished, damaged, or of an unknown format.
        """
        path = Path(path)
        if not (path / "store.json").exists() and (foreign := _open_foreign(path)):
            return foreign
        remedy = f"run `sae embed --out {path}` again to finish it"
        info = read_config(path / "store.json", StoreInfo, remedy)
        if info.shards:
            from sae.data.adopt import reopen

            return reopen(path, info)
        for shard in range(len(info.shard_rows)):
            if not shard_path(path, shard).exists():
                raise UserError(f"{shard_path(path, shard)} is missing; delete {path} and {remedy}")
        return cls(path, info)

    @cached_property
    def images(self) -> pd.DataFrame:
        """One line per global row: image_id, path, domain, label, width, height."""
        import pandas as pd

        frame = pd.read_parquet(self.path / "images.parquet")
        if len(frame) != self.info.n_images:
            raise UserError(
                f"{self.path / 'images.parquet'} has {len(frame)} lines, but store.json says "
                f"{self.info.n_images}; delete the store and run `sae embed` again"
            )
        return frame

    @property
    def domains(self) -> list[str]:
        """In the order in which they were given."""
        return list(self.info.roots)

    def batches(
        self, n_images: int = 4096, rows: NDArray[np.int64] | None = None
    ) -> Iterator[Batch]:
        """All images, or the ascending `rows`, `n_images` at a time; only the last may be fewer."""
        wanted = np.arange(self.info.n_images) if rows is None else np.asarray(rows, dtype=np.int64)
        for start in range(0, len(wanted), n_images):
            part = wanted[start : start + n_images]
            yield Batch(part, self._read_ascending(part))

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """(len(rows), t, d) in the stored type; any order, repeats allowed."""
        import torch

        unique, where = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        return self._read_ascending(unique)[torch.from_numpy(where)]

    def read_tokens(self, tokens: NDArray[np.int64], out: Tensor) -> None:
        """Fill out (len(tokens), d), of the stored type, on the CPU, with the ascending `tokens`.

        Token number row * t + place is what `read([row])[0, place]` gives. Other threads run on
        meanwhile.
        """
        self._copy(tokens, self._starts * self.info.tokens_per_image, out)

    def image_path(self, row: int) -> Path:
        """Where the image lies now. Raises `UserError` when its domain's folder has gone."""
        image = self.images.iloc[row]
        root = Path(os.path.normpath(self.path.resolve() / self.info.roots[image["domain"]]))
        if not root.is_dir():
            raise UserError(
                f"the images of domain {image['domain']!r} are no longer at {root}; "
                f"put them back, or change `roots` in {self.path / 'store.json'}"
            )
        return root / str(image["path"])

    def _read_ascending(self, rows: NDArray[np.int64]) -> Tensor:
        import torch

        shape = (len(rows), self.info.tokens_per_image, self.info.d)
        x = torch.empty(shape, dtype=torch_dtype(self.info.dtype))
        self._copy(rows, self._starts, x)
        return x

    def _copy(self, numbers: NDArray[np.int64], starts: NDArray[np.int64], out: Tensor) -> None:
        """Copy items of out's shape; `starts` (n_shards + 1,) is the number of each shard's first.

        Raises `IndexError` for a number that is not there.
        """
        if len(numbers) and (numbers[0] < 0 or numbers[-1] >= starts[-1]):
            raise IndexError(
                f"{numbers[0]}..{numbers[-1]} of a store of {self.info.n_images} images"
            )
        target = out.numpy()
        cuts = np.searchsorted(numbers, starts)  # (n_shards + 1,)
        for shard in np.flatnonzero(np.diff(cuts)).tolist():
            part = slice(cuts[shard], cuts[shard + 1])
            self._take(shard, numbers[part] - starts[shard], target[part])

    def _take(self, shard: int, numbers: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy items of a shard, counted from its first, of the shape that `out` has: tokens
        (n, d) or whole images (n, t, d).
        """
        x = self._shard(shard).reshape(-1, *out.shape[1:])
        # "clip" copies straight into `out`; the default mode would make a copy first.
        np.take(x, numbers, axis=0, out=out, mode="clip")

    def _shard(self, shard: int) -> NDArray[Any]:
        """The shard's embeddings (rows, t, d), mapped: the system reads what is looked at."""
        if shard not in self._shards:
            shape = [self.info.shard_rows[shard], self.info.tokens_per_image, self.info.d]
            self._shards[shard] = _mapped(shard_path(self.path, shard), shape)
        return self._shards[shard]


def torch_dtype(name: str) -> torch.dtype:
    """One of `DTYPES` as torch has it; what only looks for images must not wait for torch."""
    import torch

    found: torch.dtype = getattr(torch, name)
    return found


def shard_path(store: Path, shard: int) -> Path:
    """Where a shard's embeddings lie."""
    return store / f"{shard:05d}.safetensors"


def read_skipped(path: Path) -> list[Skipped]:
    """The lines of a skipped.csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Skipped(**line) for line in csv.DictReader(file)]


def _open_foreign(path: Path) -> EmbeddingStore | None:
    if not path.exists() and "@" not in path.name:
        return None
    from sae.data.adopt import open_foreign

    return open_foreign(path)


def _mapped(path: Path, shape: list[int]) -> NDArray[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            x: Tensor = file.get_tensor("x")
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged or missing ({error}); embed the images again") from None
    if list(x.shape) != shape:
        raise UserError(f"{path} holds {list(x.shape)}, but store.json says {shape}")
    array: NDArray[Any] = x.numpy()
    return array
