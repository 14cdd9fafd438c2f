"""The same images in other forms: tar archives, parquet tables, lists."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_tar(archive: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """An archive of files (name, content)."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive


def write_shards(folder: Path, images: Sequence[tuple[str, bytes]], n: int) -> None:
    """WebDataset's layout: `n` archives; (class, content) as NUMBER.png and NUMBER.cls."""
    for shard in range(n):
        here = list(enumerate(images))[shard::n]
        pairs = (
            (f"{number:06d}{suffix}", data)
            for number, (label, image) in here
            for suffix, data in ((".cls", label.encode()), (".png", image))
        )
        write_tar(folder / f"{shard:06d}.tar", pairs)


def write_table(file: Path, images: Sequence[tuple[str, bytes]], group_rows: int = 4) -> Path:
    """As Hugging Face's data sets lie on disk: image {bytes, path}, label with names beside."""
    file.parent.mkdir(parents=True, exist_ok=True)
    names = sorted({label for label, _ in images})
    told = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table(
        {
            "image": [{"bytes": data, "path": None} for _, data in images],
            "label": [names.index(label) for label, _ in images],
        }
    ).replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, file, row_group_size=group_rows)
    return file


def write_list(file: Path, rows: Iterable[dict[str, str]]) -> Path:
    """A CSV file with the first row's columns."""
    rows = list(rows)
    with file.open("w", encoding="utf-8", newline="") as text:
        lines = csv.DictWriter(text, list(rows[0]))
        lines.writeheader()
        lines.writerows(rows)
    return file
