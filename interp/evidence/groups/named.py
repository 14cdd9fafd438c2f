"""What a user says of groups, in a CSV file or in images.parquet -> pairs of rows that belong
together."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from interp.evidence.stream.top_k import Ints
from sae.core.errors import UserError
from sae.core.files import did_you_mean, sha256_hex
from sae.data.store import EmbeddingStore
from sae.data.store_format import read_skipped

COLUMNS = ("path", "group")
_N_NAMED, _MOST_COMPARED = 3, 20_000
_TWIN = "duplicate of "
"""How skipped.csv says that a file has the very bytes of another."""


class Named(NamedTuple):
    """Rows that are of one group, pair by pair, and what tells these groups from others."""

    first: Ints  # (n,)
    second: Ints  # (n,)
    sha256: str
    """64 hex digits; "" where nobody said anything of groups."""


def read_named(store: EmbeddingStore, file: Path | None) -> Named:
    """The groups of a `--groups` file, and of the column `group` of images.parquet where it has it.

    An image may be in several groups: these then belong together. An empty cell says nothing.
    Raises `UserError` for a file without the columns `path` and `group`, and for a path that is
    not, or not clearly, of an image of the store.
    """
    said: list[tuple[str, int]] = []
    if "group" in store.images:
        cells = store.images["group"].tolist()
        said += [(f"column {cell}", row) for row, cell in enumerate(cells) if cell]
    if file is not None:
        said += [(f"file {group}", row) for group, row in _read(store, file)]
    first: dict[str, int] = {}
    pairs = np.array([(first.setdefault(group, row), row) for group, row in said], np.int64)
    a, b = pairs.reshape(-1, 2).T
    ids = store.images["image_id"].to_numpy(object)
    words = sorted(f"{ids[one]} {ids[other]}" for one, other in zip(a, b, strict=True))
    return Named(a, b, sha256_hex(" ".join(words).encode()) if said else "")


def require_groups(file: Path, no_groups: bool) -> None:
    """Raise `UserError` where a `--groups` file cannot be read, or is not to count."""
    if no_groups:
        raise UserError(f"--groups {file} and --no-groups exclude each other; leave one out")
    for _ in _lines(file):
        pass


def _read(store: EmbeddingStore, file: Path) -> list[tuple[str, int]]:
    """(group, row) of each line that names a group and an image that was embedded."""
    whole, bare = _places(store)
    found: list[tuple[str, int]] = []
    unknown: list[str] = []
    for number, path, group in _lines(file):
        rows = {whole[path]} if path in whole else bare.get(path, set())
        if len(rows) > 1 and group:
            raise UserError(
                f"--groups {file}, line {number}: {path!r} is in several domains; write domain/path"
            )
        if not rows:
            unknown.append(path)
        found += [(group, row) for row in rows if group and row >= 0]
    if unknown:
        more = f", and {len(unknown) - _N_NAMED:,} more" if len(unknown) > _N_NAMED else ""
        near = did_you_mean(unknown[0], [*bare, *whole]) if len(whole) < _MOST_COMPARED else ""
        raise UserError(
            f"--groups {file} names {len(unknown):,} images that {store.path} does not have: "
            f"{', '.join(map(repr, unknown[:_N_NAMED]))}{more}; a path is that of images.parquet, "
            f"or domain/path{near}"
        )
    return found


def _places(store: EmbeddingStore) -> tuple[dict[str, int], dict[str, set[int]]]:
    """Rows by domain/path, and by path alone. A skipped file has the row of the one that it is a
    duplicate of, else -1."""
    pairs = list(zip(store.images["domain"], store.images["path"], strict=True))
    whole = {f"{domain}/{path}": row for row, (domain, path) in enumerate(pairs)}
    skipped = store.path / "skipped.csv"
    for line in read_skipped(skipped) if skipped.exists() else ():
        twin = line.reason.removeprefix(_TWIN)
        whole.setdefault(f"{line.domain}/{line.path}", whole.get(twin, -1))
        pairs.append((line.domain, line.path))
    bare: dict[str, set[int]] = {}
    for domain, path in pairs:
        bare.setdefault(path, set()).add(whole[f"{domain}/{path}"])
    return whole, bare


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, group) of each line below the head."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            lines = csv.DictReader(text)
            head = [name.strip() for name in lines.fieldnames or ()]
            if not {*COLUMNS} <= {*head}:
                raise UserError(
                    f"--groups {file} has the columns {', '.join(head) or '(none)'}; it must have "
                    "path,group"
                )
            lines.fieldnames = head
            for line in lines:
                path, group = ((line[name] or "").strip() for name in COLUMNS)
                yield lines.line_num, path.removeprefix("./"), group
    except FileNotFoundError:
        raise UserError(f"--groups {file}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--groups {file} cannot be read as CSV in UTF-8: {error}") from None
