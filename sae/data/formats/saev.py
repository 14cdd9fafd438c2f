"""Activations as OSU-NLP-Group/saev writes them: metadata.json, shards.json and acts%06d.bin.

A file is (examples, layers, tokens, d) little-endian floats, always of full size: the last one is
filled up with zeros. Protocols 1.0.0 to 2.1, and the legacy form of February 2025, without
shards.json. `data` of metadata.json, a pickle in base64, is never looked at.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.data.formats.layout import Choice, Labels, Layout, grid_of
from sae.data.tokens import tokens_named
from sae.untrusted.json_file import json_object

NAME = "saev shards"
METADATA, MANIFEST, LABELS = "metadata.json", "shards.json", "labels.bin"
MAX_MANIFEST = 1 << 24
_SPELLINGS = {
    "family": ("family", "vit_family", "model_family", "model_org"),
    "ckpt": ("ckpt", "vit_ckpt", "model_ckpt"),
    "n_patches": ("content_tokens_per_example", "patches_per_ex", "n_patches_per_img"),
    "d": ("d_model", "d_vit"),
    "n_examples": ("n_examples", "n_imgs"),
    "max_tokens": (
        *("max_tokens_per_shard", "patches_per_shard"),
        *("max_patches_per_shard", "n_patches_per_shard"),
    ),
}
_CHUNK = 4096


@dataclass(frozen=True)
class Metadata:
    """metadata.json, whatever the protocol calls it."""

    clip: str
    """As open_clip is asked for it; of another family with that in front."""
    layers: tuple[int, ...]
    n_patches: int
    """Per example, without CLS; 0 where CLS alone was kept."""
    has_cls: bool
    d: int
    n_examples: int
    max_tokens: int
    dtype: str
    protocol: str
    """"" for the legacy form."""

    @property
    def n_tokens(self) -> int:
        return self.n_patches + self.has_cls

    @property
    def per_shard(self) -> int:
        """Examples in a file of full size."""
        return self.max_tokens // (max(1, self.n_tokens) * len(self.layers))

    @property
    def n_bytes(self) -> int:
        """Of every file."""
        n_vectors = self.per_shard * len(self.layers) * self.n_tokens
        return n_vectors * self.d * np.dtype(self.dtype).itemsize


def find(path: Path) -> Path | None:
    """The folder of shards at or below a path. Raises `UserError` when there are several."""
    if _is_metadata(path / METADATA):
        return path
    below = (path / "saev" / "shards", path / "shards", path)
    found = [p.parent for f in below for p in sorted(f.glob(f"*/{METADATA}")) if _is_metadata(p)]
    if len(found) > 1:
        some = ", ".join(folder.name for folder in found[:4])
        raise UserError(f"{path} holds {len(found)} sets of shards ({some}); name one of them")
    return found[0] if found else None


def read(folder: Path, choice: Choice) -> Layout:
    """Check all files of a folder, and choose a layer and a kind of tokens.

    Raises `UserError` when a file lacks or has another size, or the two JSON files disagree.
    """
    values = json_object(folder / METADATA)
    metadata = _with_tokens_on_disk(_metadata(values, folder / METADATA), folder)
    if metadata.per_shard < 1:
        raise UserError(
            f"{folder / METADATA}: {metadata.max_tokens} tokens a file are fewer than one "
            f"example has ({metadata.n_tokens} tokens x {len(metadata.layers)} layers)"
        )
    rows = _rows(metadata, folder)
    files = tuple(folder / f"acts{shard:06d}.bin" for shard in range(len(rows)))
    for file in files:
        _require_size(file, metadata)
    layer, place = _chosen_layer(metadata, choice.layer, folder)
    tokens = _chosen_tokens(metadata, choice.tokens, folder)
    n_kept = {"cls": 1, "patch": metadata.n_patches, "all": metadata.n_tokens}[tokens]
    beyond_cls = int(tokens == "patch" and metadata.has_cls)
    return Layout(
        form=f"{NAME} {metadata.protocol or '(legacy)'}",
        files=files,
        rows=rows,
        stride=len(metadata.layers) * metadata.n_tokens,
        first=place * metadata.n_tokens + beyond_cls,
        d=metadata.d,
        tokens_per_image=n_kept,
        grid=[] if tokens == "cls" else grid_of(metadata.n_patches),
        dtype=metadata.dtype,
        clip=choice.clip or metadata.clip,
        layer=str(layer),
        tokens=tokens,
        fingerprint=hashlib.sha256((folder / METADATA).read_bytes()).hexdigest(),
        vectors=functools.partial(_mapped, files, metadata),
        labels=functools.partial(_labels, folder / LABELS, metadata),
    )


def _is_metadata(path: Path) -> bool:
    if not path.is_file():
        return False
    values = json_object(path)
    return "layers" in values and any(name in values for name in _SPELLINGS["d"])


def _metadata(values: Mapping[str, Any], path: Path) -> Metadata:
    layers = values.get("layers")
    if not isinstance(layers, list) or not layers or not all(type(n) is int for n in layers):
        raise UserError(f"{path}: layers is {layers!r:.80}, but must list whole numbers")
    protocol = str(values.get("protocol", ""))
    dtype = values.get("dtype", "float32")
    if dtype not in ("float16", "float32"):
        raise UserError(f"{path}: dtype is {dtype!r:.40}; saev writes float32")
    family, ckpt = (str(_spelt(values, name, path)[1]) for name in ("family", "ckpt"))
    n_patches = (
        0 if _spelt(values, "n_patches", path)[1] == 0 else _count(values, "n_patches", path)
    )
    return Metadata(
        clip=ckpt if family in ("clip", "open-clip") else f"{family}/{ckpt}",
        layers=tuple(layers),
        n_patches=n_patches,
        has_cls=bool(values.get("cls_token", True)) or n_patches == 0,
        d=_count(values, "d", path),
        n_examples=_count(values, "n_examples", path),
        max_tokens=_count(values, "max_tokens", path),
        dtype=dtype,
        protocol=protocol,
    )


def _spelt(values: Mapping[str, Any], name: str, path: Path) -> tuple[str, Any]:
    """The key under which this protocol has it, and its value."""
    key = next((key for key in _SPELLINGS[name] if key in values), None)
    if key is None:
        raise UserError(f"{path} lacks {_SPELLINGS[name][0]}; it is damaged, or no list of saev's")
    return key, values[key]


def _count(values: Mapping[str, Any], name: str, path: Path) -> int:
    from sae.untrusted.fields import number  # torch: most stores do without

    return number(values, _spelt(values, name, path)[0], str(path))


def _with_tokens_on_disk(metadata: Metadata, folder: Path) -> Metadata:
    """The legacy form kept CLS even when told not to, in some versions: the first file tells."""
    first = folder / "acts000000.bin"
    if metadata.protocol or metadata.has_cls or not first.is_file():
        return metadata
    with_cls = Metadata(**{**vars(metadata), "has_cls": True})
    return with_cls if first.stat().st_size == with_cls.n_bytes else metadata


def _rows(metadata: Metadata, folder: Path) -> tuple[int, ...]:
    """Examples in each file, as metadata.json implies; shards.json must say the same."""
    n, per_shard = metadata.n_examples, metadata.per_shard
    n_needed, n_there = -(-n // per_shard), sum(1 for _ in folder.glob("acts*.bin"))
    if n_there < n_needed:
        raise UserError(
            f"{folder} has {n_there} files acts*.bin, but {METADATA} tells of {n} examples, "
            f"{per_shard} a file: {n_needed - n_there} lack; fetch them"
        )
    rows = tuple(min(per_shard, n - first) for first in range(0, n, per_shard))
    if metadata.protocol:
        _require_same(rows, tuple(_manifest(folder / MANIFEST)), folder)
    return rows


def _manifest(path: Path) -> Iterator[int]:
    """Examples in each file as shards.json tells."""
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise UserError(f"{path} is too large for a list of files")
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: fetch it, or let saev finish its shards") from None
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} does not hold a list of files")
    for shard, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        n = entry.get("n_examples", entry.get("n_imgs"))
        if entry.get("name") != f"acts{shard:06d}.bin" or type(n) is not int or n < 0:
            raise UserError(f"{path}: entry {shard} is no acts{shard:06d}.bin with its examples")
        yield n


def _require_same(rows: tuple[int, ...], told: tuple[int, ...], folder: Path) -> None:
    # When the examples fill the last file, saev begins one more and leaves it empty.
    told = told[:-1] if len(told) == len(rows) + 1 and told[-1] == 0 else told
    if told == rows:
        return
    if sum(told) != sum(rows):
        raise UserError(
            f"{folder / MANIFEST} tells of {sum(told)} examples, but {METADATA} of {sum(rows)}: "
            "saev did not finish, or they are not of the same shards"
        )
    raise UserError(
        f"{folder / MANIFEST} has {_some(told)} examples a file, but {METADATA} gives {_some(rows)}"
    )


def _some(rows: tuple[int, ...]) -> str:
    return ", ".join(map(str, rows[:4])) + (", ..." if len(rows) > 4 else "")


def _require_size(file: Path, metadata: Metadata) -> None:
    if not file.is_file():
        raise UserError(f"{file} is missing; fetch it")
    n_bytes = file.stat().st_size
    if n_bytes != metadata.n_bytes:
        raise UserError(
            f"{file} has {n_bytes:,} bytes, not {metadata.n_bytes:,} ({metadata.per_shard} examples"
            f" x {len(metadata.layers)} layers x {metadata.n_tokens} tokens x {metadata.d} "
            f"{metadata.dtype}): it is truncated or of other shards; fetch it again"
        )


def _chosen_layer(metadata: Metadata, wanted: str, folder: Path) -> tuple[int, int]:
    """The layer and its place in the files."""
    known = ", ".join(map(str, metadata.layers))
    try:
        layer = int(wanted) if wanted else metadata.layers[-1]
        return layer, metadata.layers.index(layer)
    except ValueError:
        raise UserError(f"{folder} has no layer {wanted!r}; it has {known}") from None


def _chosen_tokens(metadata: Metadata, wanted: str, folder: Path) -> str:
    tokens = tokens_named(wanted or ("patch" if metadata.n_patches else "cls"))
    if tokens == "cls" and not metadata.has_cls:
        raise UserError(f"{folder} has no CLS tokens; choose patch")
    if tokens == "patch" and not metadata.n_patches:
        raise UserError(f"{folder} has CLS tokens alone; choose cls")
    return "patch" if tokens == "all" and not metadata.has_cls else tokens


def _mapped(files: tuple[Path, ...], metadata: Metadata, shard: int) -> NDArray[Any]:
    dtype = np.dtype(metadata.dtype).newbyteorder("<")
    return np.memmap(files[shard], dtype, mode="r").reshape(-1, metadata.d)


def _labels(path: Path, metadata: Metadata) -> Labels:
    """The commonest class of each image's patches, the smaller number of equal ones."""
    if not path.is_file() or not metadata.n_patches:
        return Labels([], "patches")
    shape = (metadata.n_examples, metadata.n_patches)
    if path.stat().st_size != shape[0] * shape[1]:
        raise UserError(
            f"{path} has {path.stat().st_size:,} bytes, not {shape[0]:,} examples x {shape[1]}"
        )
    classes = np.memmap(path, np.uint8, mode="r").reshape(shape)
    values: list[str] = []
    for first in range(0, len(classes), _CHUNK):
        part = classes[first : first + _CHUNK].astype(np.int64)
        offset = np.arange(len(part))[:, None] * 256
        counts = np.bincount((part + offset).ravel(), minlength=256 * len(part))
        values += counts.reshape(-1, 256).argmax(1).astype(str).tolist()
    return Labels(values, "patches")
