"""Embeddings, shard after shard -> a store; a run stopped at any moment can go on.

Shard k holds what came of the candidates [k * S, (k + 1) * S) of the sorted list, with
S = `shard_images`. While the store is unfinished each shard has its own `00000.parquet` and
`00000.skipped.csv` beside it; they are merged and removed at the end; store.json is written last.
A shard depends on its own candidates alone: several processes may write them, in any order. What
stands in an earlier shard too is taken out when they are merged.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sae.core.csv_cells import write_cell
from sae.core.disk import require_room
from sae.core.errors import UserError
from sae.core.files import (
    FORMAT,
    package_version,
    read_config,
    replacing,
    sha256_hex,
    write_json,
    write_tensors,
)
from sae.core.output import require_own
from sae.data.images import MAX_PIXELS
from sae.data.store_format import (
    ImageRow,
    Skipped,
    StoreInfo,
    Vectors,
    read_skipped,
    shard_path,
    torch_dtype,
)
from sae.data.table import IMAGE_COLUMNS, read_frame

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

DUPLICATE = "duplicate of "
"""How skipped.csv says that a file has the very bytes of another."""


@dataclass(frozen=True, kw_only=True)
class Plan(Vectors):
    """plan.json: all that decides a store's content, fixed before the first image is read."""

    shard_images: int
    n_files: int
    files: str
    """Digest of the candidates' names and sizes."""
    roots: dict[str, str]
    format: int = FORMAT
    max_pixels: int = MAX_PIXELS
    """Of an image; those with more are skipped."""
    on_the_fly: bool = False
    """A list of images alone: no shard is written."""

    @property
    def image_bytes(self) -> int:
        """Of the vectors of one image."""
        return self.tokens_per_image * self.d * torch_dtype(self.dtype).itemsize

    @property
    def n_shards(self) -> int:
        """Each covers `shard_images` candidates; the last one what remains."""
        return -(-self.n_files // self.shard_images)

    def span(self, shard: int) -> range:
        """The candidates that a shard covers."""
        first = shard * self.shard_images
        return range(first, min(first + self.shard_images, self.n_files))


class StoreWriter:
    """Writes a store shard by shard; what is written stays, and another run goes on after it."""

    def __init__(self, path: Path, plan: Plan) -> None:
        """Begin or go on. Raises `UserError` when the store was begun with another plan."""
        require_own(path, "store", (path / "plan.json").exists())
        self.path = path
        self.plan = plan
        if (path / "plan.json").exists():
            _refuse_difference(path, read_config(path / "plan.json", Plan), plan)
        else:
            write_json(path / "plan.json", plan)
        self.done = set[int]()
        """Shards already finished."""
        self.look()

    def look(self) -> None:
        """See which shards are finished, also those that another process has written."""
        shards = range(self.plan.n_shards)
        self.done = {shard for shard in shards if _rows_path(self.path, shard).exists()}

    @property
    def left(self) -> list[int]:
        """Shards that are still to be written."""
        return [shard for shard in range(self.plan.n_shards) if shard not in self.done]

    @property
    def n_left(self) -> int:
        """Candidates of these."""
        return sum(len(self.plan.span(shard)) for shard in self.left)

    def read_finished(self) -> StoreInfo | None:
        """What is written, when an earlier run has finished the whole store."""
        if not (self.path / "store.json").exists():
            return None
        info = read_config(self.path / "store.json", StoreInfo)
        self._remove_parts()
        return info

    def write_shard(
        self,
        x: Tensor | None,
        rows: Sequence[ImageRow],
        skipped: Sequence[Skipped],
        shard: int | None = None,
    ) -> None:
        """Write a shard, by default the first of those left: x (len(rows), t, d), and what became
        of each of its candidates.

        None stands for the embeddings of a store that keeps none.
        """
        shard = self.left[0] if shard is None else shard
        if x is not None:
            x = x.to(torch_dtype(self.plan.dtype)).contiguous()
            write_tensors(shard_path(self.path, shard), {"x": x})
        _write_skipped(_skipped_path(self.path, shard), skipped)
        # Last: it marks the shard as done.
        write_rows(_rows_path(self.path, shard), row_frame(rows))
        self.done.add(shard)

    def write_skipped(self, twice: Mapping[int, Sequence[Skipped]] | None = None) -> list[Skipped]:
        """Gather the shards' lists, and what is `twice` by shard, into skipped.csv; return them."""
        skipped: list[Skipped] = []
        for shard in sorted(self.done):
            skipped += read_skipped(_skipped_path(self.path, shard))
            skipped += (twice or {}).get(shard, ())
        _write_skipped(self.path / "skipped.csv", skipped)
        return skipped

    def finish(self) -> StoreInfo:
        """Merge the shards' lists and write store.json. All shards must be there."""
        assert not self.left
        import pandas as pd

        frames = [self._read_rows(shard) for shard in range(self.plan.n_shards)]
        twice = self._take_out_twins(frames)
        n_skipped = len(self.write_skipped(twice))
        images = pd.concat(frames, ignore_index=True)
        write_rows(self.path / "images.parquet", images)
        shared = {f.name for f in fields(StoreInfo)} & {f.name for f in fields(Plan)}
        info = StoreInfo(
            **{name: value for name, value in asdict(self.plan).items() if name in shared},
            n_images=len(images),
            n_skipped=n_skipped,
            shard_rows=[len(frame) for frame in frames],
            identity=_identity(self.plan, images["image_id"]),
            version=package_version(),
        )
        write_json(self.path / "store.json", info)
        self._remove_parts()
        return info

    def _take_out_twins(self, frames: list[pd.DataFrame]) -> dict[int, list[Skipped]]:
        """Take images that stand in an earlier shard too out of their shard and its frame; by
        shard, what is said of them. The shard's own lists stay: it can be done again.
        """
        import pandas as pd

        images = pd.concat(frames, ignore_index=True)
        is_new = ~images["image_id"].duplicated().to_numpy()
        twice: dict[int, list[Skipped]] = {}
        if is_new.all():
            return twice
        paths, domains, ids = (images[name].tolist() for name in ("path", "domain", "image_id"))
        first = {ids[row]: f"{domains[row]}/{paths[row]}" for row in np.flatnonzero(is_new)}
        ends = np.cumsum([0, *map(len, frames)])
        for shard, (start, end) in enumerate(itertools.pairwise(ends)):
            new = is_new[start:end]
            if new.all():
                continue
            twice[shard] = [
                Skipped(paths[row], domains[row], DUPLICATE + first[ids[row]])
                for row in start + np.flatnonzero(~new)
            ]
            frames[shard] = frames[shard][new]
            if not self.plan.on_the_fly:
                _cut(shard_path(self.path, shard), new)
        return twice

    def _read_rows(self, shard: int) -> pd.DataFrame:
        remedy = f"delete {self.path} and run the same command"
        return read_frame(_rows_path(self.path, shard), IMAGE_COLUMNS, remedy)

    def _remove_parts(self) -> None:
        for shard in range(self.plan.n_shards):
            _rows_path(self.path, shard).unlink(missing_ok=True)
            _skipped_path(self.path, shard).unlink(missing_ok=True)


def _cut(path: Path, rows: NDArray[np.bool_]) -> None:
    """Keep these rows of a shard, unless a call that was stopped has done so."""
    import torch
    from safetensors.torch import load_file

    x = load_file(path)["x"]
    if len(x) != rows.sum():
        write_tensors(path, {"x": x[torch.from_numpy(rows)]})


def require_room_for(writers: Sequence[StoreWriter]) -> None:
    """Raise `UserError` where the disk cannot take the shards that are still to be written."""
    sizes = [(w.plan.image_bytes, w.n_left, w.plan.shard_images) for w in writers]
    largest = max(n_bytes * min(n_left, n_shard) for n_bytes, n_left, n_shard in sizes)
    require_room(writers[0].path, sum(n_bytes * n_left for n_bytes, n_left, _ in sizes), largest)


def write_rows(path: Path, frame: pd.DataFrame) -> None:
    """Write images.parquet, complete or not at all."""
    with replacing(path) as part:
        frame.to_parquet(part, engine="pyarrow", index=False)


def row_frame(rows: Sequence[ImageRow]) -> pd.DataFrame:
    """The rows as the table of images.parquet."""
    import pandas as pd

    whole = ("width", "height")
    types = {name: "int32" if name in whole else "str" for name in ImageRow._fields}
    return pd.DataFrame(list(rows), columns=list(ImageRow._fields)).astype(types)


def relative_roots(roots: Mapping[str, Path], store: Path) -> dict[str, str]:
    """Each root as seen from the store's folder, posix, so that the two can move together."""
    try:
        return {
            domain: Path(os.path.relpath(root.resolve(), store.resolve())).as_posix()
            for domain, root in roots.items()
        }
    except ValueError:
        raise UserError(
            f"{store} and the images are on different drives; choose one drive"
        ) from None


def _refuse_difference(path: Path, old: Plan, new: Plan) -> None:
    for name in [f.name for f in fields(Plan)]:
        was, now = getattr(old, name), getattr(new, name)
        if was == now or (name == "view" and not was):
            continue
        what = "another list of images (names or sizes)" if name == "files" else f"{name} {was!r}"
        asked = "" if name == "files" else f", and now {now!r} is asked for"
        raise UserError(
            f"{path} was begun with {what}{asked}; finish it as it was begun, "
            f"choose another --out, or delete {path}"
        )


def _rows_path(store: Path, shard: int) -> Path:
    return store / f"{shard:05d}.parquet"


def _skipped_path(store: Path, shard: int) -> Path:
    return store / f"{shard:05d}.skipped.csv"


def _write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    # A file's name may hold bytes that are no UTF-8.
    with (
        replacing(path) as part,
        part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        for row in (Skipped._fields, *skipped):
            file.write(",".join(map(write_cell, row)) + "\n")


def _identity(plan: Plan, image_ids: Iterable[str]) -> str:
    settings = [plan.clip_sha, plan.layer, plan.tokens, plan.dtype]
    settings += ["normalised"] * plan.normalised
    return sha256_hex("".join(f"{value}\n" for value in (*settings, *image_ids)).encode())
