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

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sae.core.errors import UserError
from sae.core.files import FORMAT, package_version, read_config, sha256_hex
from sae.data.formats import chunks, dense, saev
from sae.data.formats.layout import Choice, Labels, Shards
from sae.data.store_format import ImageRow, StoreInfo, shard_path, torch_dtype
from sae.untrusted.found import one_line
from sae.untrusted.unpickle import DAMAGE

if TYPE_CHECKING:
    import pandas as pd

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


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
            pass

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


def _open_foreign(path: Path) -> EmbeddingStore | None:
    if not path.exists() and "@" not in path.name:
        return None
    pass

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


DOMAIN = "images"
"""Of images about which nothing is known."""


MAX_HELD = 256 << 20
"""Bytes of shards that stay open or in memory; the last one stays in any case."""


MAX_OPEN = 256


_LAYER = re.compile(r"-?\d{1,6}|projected")


class _Form(Protocol):
    def find(self, path: Path) -> Path | None: ...
    def read(self, path: Path, choice: Choice) -> Shards: ...


_FORMS = cast("tuple[_Form, ...]", (saev, chunks, dense))


class ForeignStore(EmbeddingStore):
    """A store whose embeddings lie in foreign files. All else is as in any store."""

    def __init__(self, path: Path, info: StoreInfo, shards: Shards) -> None:
        super().__init__(path, info)
        self.shards = shards

    @cached_property
    def images(self) -> pd.DataFrame:
        """As in any store. Of images that nobody has shown, `path` is the row's number."""
        if self.info.shards:
            return super().images
        import pandas as pd

        return pd.DataFrame(_unseen(self.shards, DOMAIN), columns=list(ImageRow._fields))

    def image_path(self, row: int) -> Path:
        if not any(self.info.roots.values()):
            raise UserError(
                f"{self.path} does not say which images it is of; run `interp collect` with "
                f"--images FOLDER, the folder that it was made of, or `sae adopt {self.path} "
                "--images FOLDER --out STORE`"
            )
        return super().image_path(row)

    def _take(self, shard: int, numbers: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Both tokens (n, d) and whole images (n, t, d) are taken vector by vector."""
        shards, t = self.shards, self.info.tokens_per_image
        if out.ndim == 3:
            numbers = (numbers[:, None] * t + np.arange(t)).ravel()
        vectors = numbers // t * shards.stride + shards.first + numbers % t
        stored, target = self._shard(shard), out.reshape(-1, self.info.d)
        if stored.dtype == target.dtype and stored.flags.c_contiguous:
            np.take(stored, vectors, axis=0, out=target, mode="clip")
        else:  # `take` would first make a copy of all that is stored
            target[...] = stored[vectors]

    def _shard(self, shard: int) -> NDArray[Any]:
        if shard not in self._shards:
            with _mended(self.shards.files[shard]):
                self._shards[shard] = self.shards.vectors(shard)
            self._forget()
        return self._shards[shard]

    def _forget(self) -> None:
        """Let go of the shards that were opened first: a chunk is in memory, a map takes a file."""
        held = list(self._shards.items())
        in_memory = sum(x.nbytes for _, x in held if not isinstance(x, np.memmap))
        while len(held) > 1 and (len(held) > MAX_OPEN or in_memory > MAX_HELD):
            shard, x = held.pop(0)
            in_memory -= 0 if isinstance(x, np.memmap) else x.nbytes
            self._shards.pop(shard, None)


def open_foreign(path: Path) -> ForeignStore | None:
    """The store that foreign files at `path` are; None when there are none of a known kind.

    Raises `UserError` when they are damaged, or lack the layer or tokens that are asked for.
    """
    place, choice = _place_and_choice(path)
    shards = _read(place, choice)
    return None if shards is None else ForeignStore(path, _info(shards), shards)


def reopen(path: Path, info: StoreInfo) -> ForeignStore:
    """A store that `adopt` has written. Raises `UserError` when the embeddings have changed."""
    place = Path(os.path.normpath(path.resolve() / info.shards))
    remedy = f"put them back, or change `shards` in {path / 'store.json'}"
    if not place.exists():
        raise UserError(f"the embeddings of {path} are no longer at {place}; {remedy}")
    shards = _read(place, Choice(info.layer, info.tokens, info.clip))
    if shards is None or _fields(shards) != {name: getattr(info, name) for name in _fields(shards)}:
        raise UserError(f"{place} no longer holds the embeddings that {path} is of; {remedy}")
    return ForeignStore(path, info, shards)


def _place_and_choice(path: Path) -> tuple[Path, Choice]:
    """Cut `@10,cls` off a path that does not exist as it stands."""
    name, at, words = path.name.rpartition("@")
    if not at or path.exists():
        return path, Choice()
    choice = Choice()
    for word in words.split(","):
        if word in saev.TOKENS:
            choice = choice._replace(tokens=word)
        elif _LAYER.fullmatch(word):
            choice = choice._replace(layer=word)
        else:
            raise UserError(f"{path}: {word!r} is neither a layer nor cls, patch or all")
    return path.with_name(name), choice


def _read(place: Path, choice: Choice) -> Shards | None:
    with _mended(place):
        for form in _FORMS:
            if (found := form.find(place)) is not None:
                return form.read(found, choice)
    return None


@contextmanager
def _mended(place: Path) -> Iterator[None]:
    """Turn what damaged files may raise into one line."""
    try:
        yield
    except UserError as error:
        raise UserError(one_line(str(error)), error.exit_code) from None
    except (OSError, *DAMAGE) as error:
        raise UserError(one_line(f"{place} is damaged ({error!r:.200}); fetch it again")) from None


def _fields(shards: Shards) -> dict[str, Any]:
    """What store.json says of the embeddings themselves."""
    return {
        "clip": shards.clip,
        "layer": shards.layer,
        "tokens": shards.tokens,
        "dtype": shards.dtype,
        "d": shards.d,
        "tokens_per_image": shards.tokens_per_image,
        "grid": shards.grid,
        "n_images": shards.n_images,
        "shard_rows": list(shards.rows),
        "shards_sha256": shards.fingerprint,
    }


def _info(shards: Shards, image_ids: Sequence[str] = ()) -> StoreInfo:
    parts = (shards.fingerprint, shards.layer, shards.tokens, shards.dtype, *image_ids)
    return StoreInfo(
        format=FORMAT,
        clip_sha="",
        n_skipped=0,
        roots={DOMAIN: ""},
        identity=sha256_hex("".join(f"{part}\n" for part in parts).encode()),
        version=package_version(),
        **_fields(shards),
    )


def _unseen(shards: Shards, domain: str) -> list[ImageRow]:
    """Images known by their place in these files alone."""
    labels = _checked(shards).values or [""] * shards.n_images
    return [
        ImageRow(sha256_hex(f"{shards.fingerprint} {row}".encode()), str(row), domain, label, 0, 0)
        for row, label in enumerate(labels)
    ]


def _checked(shards: Shards) -> Labels:
    with _mended(shards.files[0].parent):
        return shards.labels()
