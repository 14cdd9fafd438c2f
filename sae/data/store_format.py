"""The fields of store.json, images.parquet and skipped.csv, and where a store's shards lie."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sae.core.csv_cells import read_cell
from sae.core.errors import UserError
from sae.data.images import MAX_PIXELS
from sae.data.tokens import Tokens
from sae.data.view import StoredView

if TYPE_CHECKING:
    import torch

DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Source:
    """Which vectors of which model."""

    clip: str
    layer: str
    """"projected", or a block's number, never negative."""
    tokens: Tokens
    normalised: bool = False
    """Each row is brought to length 1; of the projected layer alone."""


@dataclass(frozen=True)
class Vectors:
    """Which vectors of which model a store holds, and in which form."""

    clip: str
    clip_sha: str
    """First hex digits over the model's weights; "" where another lab's files do not tell."""
    layer: str
    tokens: str
    dtype: str
    """One of `DTYPES`."""
    d: int
    tokens_per_image: int
    grid: list[int]
    """[h, w] of the patches; [] without patches."""
    normalised: bool = False
    """Each row has length 1; False: they are as the model gives them."""
    view: StoredView = ""
    """Which part of an image the model saw; "" in other labs' and older stores
    (`EmbeddingStore.view` finds it by `clip`)."""
    adapter_sha: str = ""
    """First 16 hex digits of the sha256 of the adapter's file that `clip` names; "" for none."""

    @property
    def rows(self) -> str:
        """ "unit" or "raw"; "" of other labs' embeddings, which do not tell."""
        return "unit" if self.normalised else "raw" if self.clip_sha else ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.tokens not in ("cls", "patch", "all"):
            raise UserError(f"dtype {self.dtype!r} with tokens {self.tokens!r} is not known")
        if min(self.d, self.tokens_per_image) < 1 or min(self.grid, default=1) < 1:
            raise UserError(
                f"d {self.d}, tokens_per_image {self.tokens_per_image} and grid {self.grid} "
                "must be at least 1"
            )
        if len(self.grid) not in (0, 2):
            raise UserError(f"grid {self.grid} is not [] or [h, w]")


@dataclass(frozen=True)
class Versioned:
    """What a JSON file of ours begins with."""

    format: int


@dataclass(frozen=True, kw_only=True)
class StoreInfo(Vectors, Versioned):
    """store.json. The last base's fields are written first."""

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
    max_pixels: int = MAX_PIXELS
    """Of an image; those with more were skipped."""
    on_the_fly: bool = False
    """Nothing is kept of the embeddings: they are computed from the images when asked for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for place in (self.shards, *self.roots.values()):
            if any(ord(sign) < 32 for sign in place):
                raise UserError(f"{place!r} is no place of files")


class Skipped(NamedTuple):
    """One file that gave no embedding."""

    path: str  # posix, relative to the domain's root
    domain: str
    reason: str


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
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            return [
                Skipped(**{name: read_cell(cell) for name, cell in row.items()}) for row in lines
            ]
    except (TypeError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); delete {path.parent}") from None


class ImageRow(NamedTuple):
    """One embedded image."""

    image_id: str
    path: str  # posix, relative to the domain's root
    domain: str
    label: str
    width: int
    height: int
