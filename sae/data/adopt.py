"""Other labs' embeddings as a store: read where they lie, never copied.

Three kinds: saev's activation shards, embedding chunks, dense latents. A folder of them is a store
to every command, as `FOLDER` or `FOLDER@10,cls` (layer and tokens); `adopt` writes a small store
that points to them, and knows which images they are of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.core.files import FORMAT, sha256_hex, write_json
from sae.core.progress import Progress
from sae.data import image_folder
from sae.data.formats import chunks, dense, saev
from sae.data.formats.layout import Choice, Labels, Shards
from sae.data.store import EmbeddingStore, StoreInfo
from sae.data.store_writer import ImageRow, package_version, relative_roots, write_rows
from sae.untrusted.found import json_object, one_line
from sae.untrusted.unpickle import DAMAGE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DOMAIN", "ForeignStore", "adopt", "open_foreign", "reopen"]

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


def adopt(
    source: Path | str,
    out: Path | str,
    choice: Choice | None = None,
    images: Path | str | None = None,
    domain: str = DOMAIN,
    progress: Progress | None = None,
) -> ForeignStore:
    """Write a store to `out` that points to foreign embeddings: store.json and images.parquet.

    `images` is the folder they were made of, in torchvision's order; its files are read once, for
    the hash of their content. Without it an image is known by its place alone. Raises `UserError`
    when the numbers of images or their classes differ, or `out` holds another store.
    """
    place, suffix = _place_and_choice(Path(source))
    choice = Choice(*(a or b for a, b in zip(choice or Choice(), suffix, strict=True)))
    out, shards = Path(out), _read(place, choice)
    if shards is None:
        raise UserError(
            f"{source} is none of {', '.join((saev.NAME, chunks.NAME, dense.NAME))}; "
            "see `sae embed` for images"
        )
    rows = _unseen(shards, domain) if images is None else _seen(shards, images, domain, progress)
    relative = relative_roots({"": place} | ({domain: Path(images)} if images else {}), out)
    info = replace(
        _info(shards, [row.image_id for row in rows] if images else []),
        shards=relative.pop(""),
        roots=relative or {domain: ""},
    )
    _write(out, info, rows)
    return ForeignStore(out, info, shards)


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


def _seen(
    shards: Shards, images: Path | str, domain: str, progress: Progress | None
) -> list[ImageRow]:
    """Images found in a folder; the classes that came with the embeddings must be its own."""
    root, given = Path(images), _checked(shards)
    found = image_folder.in_order(root, shards.n_images)
    classes = [name for _, name in found]
    checkable = given.kind in ("name", "number") and any(classes) and bool(given.values)
    if checkable and not image_folder.same_classes(classes, given.values, given.kind == "number"):
        raise UserError(
            f"the classes of {root} do not follow each other as those of {shards.files[0].parent} "
            "do: it is another set of images, or was read in another order"
        )
    rows = image_folder.rows_of(root, found, domain, progress)
    if given.kind in ("name", "caption") or not any(classes):
        rows = [r._replace(label=g) for r, g in zip(rows, given.values or classes, strict=True)]
    return rows


def _checked(shards: Shards) -> Labels:
    with _mended(shards.files[0].parent):
        return shards.labels()


def _write(out: Path, info: StoreInfo, rows: Sequence[ImageRow]) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the store")
    for name in ("store.json", "plan.json", saev.METADATA):
        if (out / name).exists() and not _points_to(out, info.shards_sha256):
            raise UserError(f"{out} has {name}: other embeddings are there; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "store.json").unlink(missing_ok=True)
    write_rows(out / "images.parquet", rows)
    write_json(out / "store.json", info)


def _points_to(out: Path, fingerprint: str) -> bool:
    """Whether `out` is an adopted store of the same embeddings: it may be written again."""
    if not (out / "store.json").exists():
        return False
    return json_object(out / "store.json").get("shards_sha256") == fingerprint
