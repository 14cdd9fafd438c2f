"""A store folder, ours or another lab's -> its embeddings by row. Never imports open_clip.

store/
    store.json             what this is (`StoreInfo`); written last: without it, unfinished
    images.parquet         one line per row: image_id, path, domain, label, width, height
    skipped.csv            path, domain, reason of every file that gave no embedding
    plan.json              the settings (store_writer.py); a run that goes on must have the same
    00000.safetensors      x: (images, t, d), raw embeddings; CLS is token 0 when tokens = all

Other labs' embeddings are stores too, read where they lie: formats/.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import Notice, UserError, quote
from sae.core.files import read_config
from sae.core.places import refuse_place
from sae.data import foreign
from sae.data.formats import ours
from sae.data.formats.find import find_layout, split_choice
from sae.data.formats.layout import Choice, Layout
from sae.data.roots import follows_links, locate, name_images, require_inside
from sae.data.store_format import ImageRow, StoreInfo, torch_dtype
from sae.data.table import IMAGE_COLUMNS, read_frame, read_frames
from sae.data.view import View, find_view
from sae.untrusted.damage import errors_in_one_line
from sae.untrusted.finite import has_finite_sum

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

REMEDY = "delete the store and run `sae embed` again"
MAX_HELD = 256 << 20
"""Bytes of foreign files that stay in memory; the last one stays in any case."""
MAX_OPEN = 256
"""Foreign files that stay mapped."""


class Batch(NamedTuple):
    """Some images of a store."""

    rows: NDArray[np.int64]  # (b,) global rows
    x: Tensor  # (b, t, d) in the stored type


class EmbeddingStore:
    """A finished store, read-only. Only the list of images is held in memory, once asked for.

    The files are mapped when first read.
    """

    def __init__(self, path: Path, info: StoreInfo, layout: Layout) -> None:
        self.path = path
        self.info = info
        self.layout = layout
        self._starts = np.cumsum([0, *info.shard_rows])  # (n_shards + 1,) first row of each shard
        self._shards: dict[int, NDArray[Any]] = {}

    @classmethod
    def open(cls, path: str | Path) -> EmbeddingStore:
        """A store of ours, or a folder of other labs' embeddings, e.g. of saev's shards.

        Raises `UserError` when it is unfinished, damaged, or of an unknown format.
        """
        path = Path(path)
        if not (path / "store.json").exists():
            layout = find_layout(*split_choice(path))
            if layout is not None:
                return cls(path, foreign.store_info(layout), layout)
            if not (path / "plan.json").exists():
                raise refuse_place(split_choice(path)[0], "store")
        remedy = f"run `sae embed --out {quote(path)}` again to finish it"
        info = read_config(path / "store.json", StoreInfo, remedy)
        layout = _adopted(path, info) if info.shards else ours.read(path, info, remedy)
        return cls(path, info, layout)

    @cached_property
    def images(self) -> pd.DataFrame:
        """One line per global row: image_id, path, domain, label, width, height; and `group`, ""
        for none, where somebody has written such a column.

        Of foreign images that nobody has shown, `path` is the row's number.
        """
        import pandas as pd

        if not self._has_list:
            return pd.DataFrame(foreign.image_rows(self.layout), columns=list(ImageRow._fields))
        frame = read_frame(self._list, IMAGE_COLUMNS, REMEDY, {"group": ""})
        self._require_all(len(frame))
        require_inside(frame["path"], self._list)
        return frame if frame["group"].any() else frame.drop(columns="group")

    def take_images(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        """The lines of the ascending `rows` in `images`; where these are not in memory, they are
        read part by part and not kept.
        """
        import pandas as pd

        if "images" in vars(self) or not self._has_list:
            return self.images.loc[rows]
        found, start, grouped = list[pd.DataFrame](), 0, False
        for part in read_frames(self._list, IMAGE_COLUMNS, REMEDY, {"group": ""}):
            here = rows[slice(*np.searchsorted(rows, [start, start + len(part)]))]
            found.append(part.iloc[here - start].set_axis(here))
            grouped |= bool(part["group"].any())
            start += len(part)
        self._require_all(start)
        frame = pd.concat(found) if found else self.images
        require_inside(frame["path"], self._list)
        return frame if grouped else frame.drop(columns="group", errors="ignore")

    def forget_images(self) -> None:
        """Free the memory of the list of images; it is read again when it is asked for."""
        import pyarrow as pa

        for name in ("images", "_places"):
            vars(self).pop(name, None)
        pa.default_memory_pool().release_unused()  # which keeps what it has, for itself alone

    @property
    def _list(self) -> Path:
        return self.path / "images.parquet"

    @property
    def _has_list(self) -> bool:
        return self.layout.form == ours.NAME or bool(self.info.shards)

    def _require_all(self, n_lines: int) -> None:
        if n_lines != self.info.n_images:
            raise UserError(
                f"{self._list} has {n_lines} lines, but store.json says {self.info.n_images}; "
                f"{REMEDY}"
            )

    def readable(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `rows` whose embeddings can be had: here all."""
        return rows

    def report(self) -> None:
        """Tell of images that could not be read, where embeddings are computed when asked for."""

    @property
    def domains(self) -> list[str]:
        """In the order in which they were given."""
        return list(self.info.roots)

    @cached_property
    def view(self) -> View:
        """Which part of an image the model saw; where nothing tells, `crop`, which is said."""
        found = self.info.view or find_view(self.info.clip)
        if found is None:
            told = f"{self.path} does not say how {self.info.clip} cuts images"
            guess = "heat is drawn on the centred square; `sae embed` writes it down"
            warnings.warn(f"{told}: {guess}", Notice, stacklevel=2)
        return found or "crop"

    def batches(
        self, n_images: int = 4096, rows: NDArray[np.int64] | None = None
    ) -> Iterator[Batch]:
        """All images, or the ascending `rows`, `n_images` at a time; only the last may be fewer.

        A file is closed when it has been passed: its pages would count as memory of this process.
        """
        wanted = np.arange(self.info.n_images) if rows is None else np.asarray(rows, dtype=np.int64)
        for start in range(0, len(wanted), n_images):
            part = wanted[start : start + n_images]
            here = int(np.searchsorted(self._starts, part[0], "right")) - 1
            for shard in [shard for shard in list(self._shards) if shard < here]:
                self._shards.pop(shard, None)
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
        """Where the image lies now. Raises `UserError` when its domain's folder has gone or was not
        named by this user, the path leads out of it, or foreign embeddings do not say which images
        they are of.
        """
        if not any(self.info.roots.values()):
            raise UserError(
                f"{self.path} does not say which images it is of; run `interp collect` with "
                "--images FOLDER, the folder that it was made of, or "
                f"`sae adopt {quote(self.path)} --images FOLDER --out STORE`"
            )
        paths, domains = self._places
        domain = domains[row]
        root = self._roots[domain]
        if not root.is_dir():
            raise UserError(
                f"the images of domain {domain!r} are no longer at {root}; put them back, "
                f"or say where they are: {name_images(self.path, self.info)}"
            )
        return locate(root, paths[row], self._follows_links)

    @cached_property
    def _places(self) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """Path and domain of each row: a row of a DataFrame costs a hundred times as much."""
        return self.images["path"].to_numpy(object), self.images["domain"].to_numpy(object)

    @cached_property
    def _roots(self) -> dict[str, Path]:
        here = self.path.resolve()
        return {name: Path(os.path.normpath(here / root)) for name, root in self.info.roots.items()}

    @cached_property
    def _follows_links(self) -> bool:
        return follows_links(self.path, self.info)

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
        if self.info.on_the_fly:
            raise UserError(
                f"{self.path} is a list of images, without their embeddings; `sae embed` makes a "
                "store of them"
            )
        if len(numbers) and (numbers[0] < 0 or numbers[-1] >= starts[-1]):
            raise IndexError(
                f"{numbers[0]}..{numbers[-1]} of a store of {self.info.n_images} images"
            )
        target = out.numpy()
        cuts = np.searchsorted(numbers, starts)  # (n_shards + 1,)
        for shard in np.flatnonzero(np.diff(cuts)).tolist():
            part = slice(cuts[shard], cuts[shard + 1])
            self._take(shard, numbers[part] - starts[shard], target[part])
            self._require_finite(shard, numbers[part], out[part])

    def _require_finite(self, shard: int, numbers: NDArray[np.int64], x: Tensor) -> None:
        """Raise `UserError` with the first image of which a value is NaN or infinite."""
        if has_finite_sum(x) or bool((finite := x.isfinite().flatten(1).all(1)).all()):
            return
        bad = int(numbers[int((~finite).nonzero()[0])])
        row = bad if x.ndim == 3 else bad // self.info.tokens_per_image
        raise UserError(
            f"{self.layout.files[shard]}: the embedding of row {row} ({self.images['path'][row]}) "
            "is not finite; run `sae embed` again with --dtype float32, or fetch it again where it "
            "came from"
        )

    def _take(self, shard: int, numbers: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy items of a shard, counted from its first, of the shape that `out` has: tokens
        (n, d) or whole images (n, t, d).
        """
        stored, t = self._shard(shard), self.info.tokens_per_image  # (vectors, d)
        if self.layout.stride == t:  # nothing lies between the images
            stored = stored.reshape(-1, *out.shape[1:])
        else:
            if out.ndim == 3:
                numbers = (numbers[:, None] * t + np.arange(t)).ravel()
                out = out.reshape(-1, self.info.d)
            numbers = numbers // t * self.layout.stride + self.layout.first + numbers % t
        if stored.dtype == out.dtype and stored.flags.c_contiguous:
            # "clip" copies straight into `out`; the default mode would make a copy first.
            np.take(stored, numbers, axis=0, out=out, mode="clip")
        else:  # `take` would first make a copy of all that is stored
            out[...] = stored[numbers]

    def _shard(self, shard: int) -> NDArray[Any]:
        """All vectors of a file (n, d)."""
        opened = self._shards.get(shard)  # another thread may close it meanwhile
        if opened is None:
            file = self.layout.files[shard]
            with errors_in_one_line(f"{file} is damaged", "; fetch it again"):
                opened = self._shards[shard] = self.layout.vectors(shard)
            if not self.layout.may_stay_open:
                self._close_oldest()
        return opened

    def _close_oldest(self) -> None:
        held = list(self._shards.items())
        in_memory = sum(x.nbytes for _, x in held if not isinstance(x, np.memmap))
        while len(held) > 1 and (len(held) > MAX_OPEN or in_memory > MAX_HELD):
            shard, x = held.pop(0)
            in_memory -= 0 if isinstance(x, np.memmap) else x.nbytes
            self._shards.pop(shard, None)


def _adopted(path: Path, info: StoreInfo) -> Layout:
    """What a store that `adopt` has written points to. Raises `UserError` when it has changed."""
    place = Path(os.path.normpath(path.resolve() / info.shards))
    remedy = f"put them back, or change `shards` in {path / 'store.json'}"
    if not place.exists():
        raise UserError(f"the embeddings of {path} are no longer at {place}; {remedy}")
    layout = find_layout(place, Choice(info.layer, info.tokens, info.clip))
    if layout is not None:
        there = foreign.checked_fields(layout)
        if there == {name: getattr(info, name) for name in there}:
            return layout
    raise UserError(f"{place} no longer holds the embeddings that {path} is of; {remedy}")
