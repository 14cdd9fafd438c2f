"""Runs of `embed` on a few images, and what to look at afterwards."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from sae.clip import image_loader
from sae.clip.embed import embed
from sae.clip.model import Clip
from sae.data.images import read_image
from sae.data.sources.folders import ImageFile, find_images
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
    source = Source(clip.name, layer, tokens, bool(options.pop("normalised", False)))  # type: ignore[arg-type]
    [info] = run_layers(images, {out: source}, clip, **options)
    return info


def run_layers(
    images: Images, stores: Mapping[Path, Source], clip: Clip, **options: object
) -> list[StoreInfo]:
    settings = {"workers": 0, "batch_size": 3, "shard_images": 5, **options}
    return embed(images.files, images.roots, stores, clip, **settings)  # type: ignore[arg-type]


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
