"""A data set of Hugging Face's `datasets` (`hf:owner/name:split`) -> tables of its images here.

It is streamed once, and its images are kept as they came: what shows them later needs no network.
The folder of the tables says in its own name which data set it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from sae.core.disk import require_room
from sae.core.errors import UserError
from sae.core.files import replacing, write_json
from sae.core.lock import hold
from sae.core.progress import bar
from sae.data.sources import parquet

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "hf:"
MARKER = ".dataset.json"
TABLE_BYTES = 256 << 20
"""Of the images of a table, which is written when it has as many."""
TABLE_ROWS = 8192
GROUP_ROWS = 256
_LONGEST_WAIT = 7 * 86_400.0
"""For another process that fetches the same data set."""
_EXTRA = "pip install 'sae-interp[hf]'"
_ONLY = "_"
"""The folder of a split that was not named."""


class DataSet(NamedTuple):
    """What a user named."""

    name: str
    """`owner/name`, or a folder of images or tables that `datasets` reads."""
    split: str
    """"": the only one."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f":{self.split}" if self.split else "")


def place_of(word: str) -> Path:
    """Where the images of a domain lie; those of a data set once they are fetched."""
    if not word.startswith(PREFIX):
        return Path(word).expanduser()
    name, _, split = word.removeprefix(PREFIX).partition(":")
    if not name or not re.fullmatch(r"[\w.-]*(\[[\w:%]*\])?", split):
        raise UserError(f"{word!r} names no data set; write hf:owner/name or hf:owner/name:train")
    if Path(name).is_dir():
        name = str(Path(name).resolve())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sae-interp" / "datasets" / quote(name, "") / (quote(split, "") or _ONLY)


def fetch_missing(place: Path) -> None:
    """Fetch the data set that is to lie in a folder; of any other folder do nothing.

    What was fetched before a stop stays, and is gone on with. Raises `UserError` where the library
    or the data set is missing, has no images, or cannot be reached.
    """
    if place.parent.parent.parts[-2:] != ("sae-interp", "datasets"):
        return
    wanted = DataSet(unquote(place.parent.name), unquote(place.name).removeprefix(_ONLY))
    if (place / MARKER).exists():
        return
    with closing(hold(place.with_suffix(".lock"), str(wanted), _LONGEST_WAIT)):
        if not (place / MARKER).exists():  # another process may have just fetched it
            _fetch(wanted, place)


def _fetch(wanted: DataSet, place: Path) -> None:
    import pyarrow.parquet as pq

    tables = sorted(place.glob("*.parquet"))
    n_done = sum(pq.read_metadata(table).num_rows for table in tables)
    found = _open(wanted)
    n_all = found.info.splits[found.split].num_examples if found.info.splits else 0
    image, label, names = _columns(wanted, found)
    keep = [image, label] if label else [image]
    images = found.select_columns(keep).cast_column(image, _undecoded())
    number = len(tables)
    with bar(f"fetch {wanted}") as progress:
        for rows in _stretches(wanted, images.skip(n_done) if n_done else images, image, label):
            _write(place / f"{number:05d}.parquet", rows, names)
            number, n_done = number + 1, n_done + len(rows["image"])
            progress(n_done, max(n_all or 0, n_done))
    if not n_done:
        raise UserError(f"{wanted} has no row")
    write_json(place / MARKER, {"name": wanted.name, "split": str(found.split), "rows": n_done})


def _open(wanted: DataSet) -> Any:
    """The data set, streaming. Raises `UserError` for every way in which that can fail."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{wanted} is read with the library datasets, which is not installed: {_EXTRA}"
        ) from None
    try:
        found = datasets.load_dataset(wanted.name, split=wanted.split or None, streaming=True)
    except Exception as error:
        raise _unreachable(wanted, error) from None
    if not isinstance(found, Mapping):
        return found
    if len(found) != 1:
        known = ", ".join(found)
        raise UserError(f"{wanted} has the splits {known}; write {wanted}:{next(iter(found))}")
    return next(iter(found.values()))


def _unreachable(wanted: DataSet, error: Exception) -> UserError:
    """Of what `datasets` and what it stands on raise: too many kinds to name."""
    said = re.sub(r"\?\S+", "", " ".join(str(error).split()))[:240] or type(error).__name__
    return UserError(
        f"{wanted} cannot be read: {said}; what was fetched stays, and the same command goes on"
    )


def _undecoded() -> Any:
    import datasets

    return datasets.Image(decode=False)


def _columns(wanted: DataSet, found: Any) -> tuple[str, str, list[str]]:
    """The columns of images and of classes ("": none), and what the classes' numbers mean."""
    import datasets

    features = found.features or {}
    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    pictures += [name for name in parquet.IMAGES if _is_bytes(features.get(name))]
    if not pictures:
        there = ", ".join(features) or "none that are told"
        raise UserError(f"{wanted} has no column of images; its columns: {there[:200]}")
    image = next((name for name in parquet.IMAGES if name in pictures), pictures[0])
    called = {n: kind for n, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    label = next((name for name in parquet.CLASSES if name in features), "")
    label = label or next(iter(called), "")
    return image, label, list(called[label].names) if label in called else []


def _is_bytes(kind: Any) -> bool:
    """Whether a column holds files: bytes, or records with bytes in them."""
    if isinstance(kind, Mapping):
        kind = kind.get("bytes")
    return getattr(kind, "dtype", "") in ("binary", "large_binary")


def _stretches(wanted: DataSet, found: Any, image: str, label: str) -> Iterator[dict[str, Any]]:
    """The rows as columns `image` and `label`, as many at once as a table has."""
    images: list[bytes | None] = []
    labels: list[Any] = []
    size = 0
    for row in _rows(wanted, found):
        images.append(_bytes_of(wanted, row[image]))
        labels.append(row[label] if label else None)
        size += len(images[-1] or b"")
        if size >= TABLE_BYTES or len(images) >= TABLE_ROWS:
            yield {"image": images, "label": labels} if label else {"image": images}
            images, labels, size = [], [], 0
    if images:
        yield {"image": images, "label": labels} if label else {"image": images}


def _rows(wanted: DataSet, found: Any) -> Iterator[Any]:
    try:
        yield from found
    except Exception as error:
        raise _unreachable(wanted, error) from None


def _bytes_of(wanted: DataSet, value: Any) -> bytes | None:
    """An image's own bytes: in the row, or in a file that it names."""
    if value is None or value.get("bytes") is not None or not value.get("path"):
        return None if value is None else value.get("bytes")
    import fsspec

    try:
        with fsspec.open(value["path"], "rb") as file:
            return bytes(file.read())
    except Exception as error:
        raise _unreachable(wanted, error) from None


def _write(file: Path, rows: dict[str, Any], names: list[str]) -> None:
    """A table as `parquet` reads it, complete or not at all."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    table: pa.Table = pa.table({**rows, "image": pa.array(rows["image"], pa.binary())})
    if names:
        told = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    file.parent.mkdir(parents=True, exist_ok=True)
    require_room(file.parent, table.nbytes)
    with replacing(file) as part:
        pq.write_table(table, part, row_group_size=GROUP_ROWS)
