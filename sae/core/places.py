"""A path that a command cannot use -> what lies there instead, and the command that fits."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import Literal

from sae.core.errors import UserError, quote

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif"),
    *(".tiff", ".mpo", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".ppm", ".pgm", ".pbm"),
    ".pnm",
)
"""What has such a name may be an image. What cannot be read as one is listed as skipped."""
Kind = Literal[
    "missing", "file", "run", "store", "part of a store", "stores", "SAE", "sweep", "world",
    "images", "empty", "other",
]  # fmt: skip
_MARKS: tuple[tuple[str, Kind], ...] = (
    ("run.json", "run"),
    ("store.json", "store"),
    ("plan.json", "part of a store"),
    ("sae.safetensors", "SAE"),
    ("train.json", "SAE"),
    ("sweep.csv", "sweep"),
    ("world.json", "world"),
)
_WORDS = {
    "missing": "does not exist",
    "file": "is a file",
    "run": "is a run",
    "store": "is an EmbeddingStore",
    "part of a store": "is an unfinished EmbeddingStore",
    "stores": "is a folder of several stores",
    "SAE": "is an SAE",
    "sweep": "is a folder of several SAEs",
    "world": "is a drawn world",
    "images": "is a folder of images",
    "empty": "is an empty folder",
    "other": "holds nothing that is known here",
}
_WANTED = {
    "store": "an EmbeddingStore",
    "embeddings": "embeddings of another lab",
    "SAE": "an SAE",
    "run": "a run",
    "images": "images",
}
_TENSORS = (".pt", ".pth", ".safetensors", ".npy", ".bin", ".gz")
"""Beside them a picture is a plot of another lab's."""
_LOOKED_AT = 2000
"""Folders in which images are looked for."""


def kind_of(path: Path) -> Kind:
    """What lies at a path, by its files' names."""
    if not path.is_dir():
        return "file" if path.exists() else "missing"
    for name, kind in _MARKS:
        if (path / name).exists():
            return kind
    if any(path.glob("layer-*/plan.json")):
        return "stores"
    files = [name for _, _, names in islice(os.walk(path), _LOOKED_AT) for name in names]
    has_images = any(name.lower().endswith(IMAGE_SUFFIXES) for name in files)
    if has_images and not any(name.lower().endswith(_TENSORS) for name in files):
        return "images"
    return "other" if files or any(path.iterdir()) else "empty"


def refuse_place(
    path: Path, wanted: Literal["store", "embeddings", "SAE", "run", "images"]
) -> UserError:
    """The error of a command that wanted something else at `path`."""
    kind = kind_of(path)
    not_that = "" if kind == "missing" else f", not {_WANTED[wanted]}"
    return UserError(f"{path} {_WORDS[kind]}{not_that}; {_way_out(path, kind, wanted)}")


def require_sae(path: Path) -> None:
    """Raise `UserError` where nothing lies, or something else of ours; it may be another lab's."""
    if kind_of(path) not in ("SAE", "file", "other"):
        raise refuse_place(path, "SAE")


def _way_out(path: Path, kind: Kind, wanted: str) -> str:
    place = quote(path)
    if kind == "run":
        return f"its SAE is {path / 'sae'}, its store {_store_of(path)}"
    if kind == "sweep":
        first = next(iter(sorted(p.parent for p in path.glob("*/sae.safetensors"))), path / "NAME")
        return f"name one of them, such as {first}"
    if kind == "stores":
        layers = sorted(p.parent for p in path.glob("*/plan.json"))
        return f"name one of them: {', '.join(map(quote, layers))}"
    if kind == "SAE" and wanted != "images":
        return f"it goes with a store: `sae eval {place} STORE`, `interp collect {place} STORE`"
    if kind == "store" and wanted == "SAE":
        return f"`sae train {place} --out work/sae` trains one on it"
    if kind == "store":
        return f"`interp collect SAE {place}` makes a run of it"
    if kind == "part of a store":
        return f"finish it with the `sae embed ... --out {place}` that began it"
    if kind == "world":
        domains = " ".join(quote(f"{name}={path / name}") for name in ("sketch", "photo"))
        return f"`sae embed --domain {domains} --out work/store` makes a store of it"
    if kind == "images":
        domain = quote(f"photo={path}")
        return f"`sae embed --domain {domain} --out work/store` makes a store of it"
    if path.name == "gallery" and wanted == "run":
        return f"a gallery lies in its run: {path.parent}"
    out = place if kind in ("missing", "empty") and wanted != "embeddings" else "DIR"
    return {
        "store": f"`sae embed --domain photo=IMAGES --out {out}` makes one",
        "embeddings": f"`sae embed --domain photo=IMAGES --out {out}` makes a store of images",
        "SAE": f"`sae train STORE --out {out}` makes one",
        "run": f"`interp collect SAE STORE --run {out}` makes one",
        "images": "name a folder of images",
    }[wanted]


def _store_of(run: Path) -> Path | str:
    try:
        store = json.loads((run / "run.json").read_text(encoding="utf-8"))["store"]
        return Path(os.path.normpath(run / store))
    except (OSError, ValueError, KeyError, TypeError):
        return "the one it was collected from"
