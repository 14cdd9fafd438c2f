"""Runs of `embed` on a few images, and what to look at afterwards."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from sae.clip import image_loader
from sae.clip.embed import embed
from sae.clip.model import Clip
from sae.data.folders import ImageFile, find_images
from sae.data.images import read_image
from sae.data.store_format import Source, StoreInfo


class Images(NamedTuple):
    roots: dict[str, Path]
    files: list[ImageFile]


def found(folder: Path, *_: object) -> Images:
    roots = {"sketch": folder / "sketch", "photo": folder / "photo"}
    return Images(roots, find_images(roots))


def run(
    images: Images, out: Path, clip: Clip, layer: str = "1", tokens: str = "all", **options: object
) -> StoreInfo:
    settings = {"workers": 0, "batch_size": 3, "shard_images": 5, **options}
    source = Source(clip.name, layer, tokens)  # type: ignore[arg-type]
    return embed(images.files, images.roots, out, clip, source, **settings)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def skipped(store: Path) -> list[list[str]]:
    with (store / "skipped.csv").open(newline="") as file:
        return list(csv.reader(file))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []

    def counted(path: Path, max_pixels: int) -> tuple[str, Image.Image]:
        reads.append(path)
        return read_image(path, max_pixels)

    monkeypatch.setattr(image_loader, "read_image", counted)
    return reads
