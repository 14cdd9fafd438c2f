"""A store of our own -> its `Layout`: 00000.safetensors with x (images, t, d), one file a shard."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sae.core.errors import UserError
from sae.data.formats.layout import Labels, Layout
from sae.data.store_format import StoreInfo, shard_path

if TYPE_CHECKING:
    from torch import Tensor

NAME = "embedding store"


def read(store: Path, info: StoreInfo, remedy: str) -> Layout:
    """All shards of a finished store. Raises `UserError`, with `remedy`, when one is missing."""
    if min(info.shard_rows, default=0) < 0 or sum(info.shard_rows) != info.n_images:
        raise UserError(f"{store / 'store.json'}: shard_rows do not add up to n_images; {remedy}")
    n_files = 0 if info.on_the_fly else len(info.shard_rows)
    files = tuple(shard_path(store, shard) for shard in range(n_files))
    a_row = info.tokens_per_image * info.d * (2 if info.dtype == "float16" else 4)
    for file, n_rows in zip(files, info.shard_rows, strict=False):
        if not file.exists():
            raise UserError(f"{file} is missing; delete {store} and {remedy}")
        if file.stat().st_size < n_rows * a_row:
            raise UserError(
                f"{file} has {file.stat().st_size:,} bytes, fewer than store.json tells of; "
                f"one of them is damaged: delete {store} and {remedy}"
            )
    return Layout(
        form=NAME,
        files=files,
        rows=tuple(info.shard_rows),
        stride=info.tokens_per_image,
        first=0,
        d=info.d,
        tokens_per_image=info.tokens_per_image,
        grid=info.grid,
        dtype=info.dtype,
        clip=info.clip,
        layer=info.layer,
        tokens=info.tokens,
        fingerprint=info.identity,
        vectors=functools.partial(_mapped, files, info),
        labels=lambda: Labels([], "name"),  # they stand in images.parquet
        may_stay_open=True,
    )


def _mapped(files: tuple[Path, ...], info: StoreInfo, shard: int) -> NDArray[Any]:
    """(n, d), mapped: the system reads what is looked at."""
    path, shape = files[shard], [info.shard_rows[shard], info.tokens_per_image, info.d]
    try:
        with safe_open(path, framework="pt") as file:
            x: Tensor = file.get_tensor("x")
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged or missing ({error}); embed the images again") from None
    if list(x.shape) != shape:
        raise UserError(f"{path} holds {list(x.shape)}, but store.json says {shape}")
    array: NDArray[Any] = x.view(-1, info.d).numpy()
    return array
