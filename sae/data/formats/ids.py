"""A table of ids, a line a vector (CSV or parquet) -> what each image is called, and its class.

For arrays that do not say it themselves.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sae.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "image_path", "file", "filename", "id", "image_id", "key")
"""Names of the column of ids, the first of which counts; a table of one column needs none."""
LABEL = "label"
_CONTENT_ID = re.compile(r"[0-9a-f]{64}")


class Ids(NamedTuple):
    """Of all vectors, in their order."""

    names: list[str]
    labels: list[str]
    """[] where the table has no column `label`."""


def read_ids(file: Path, n: int) -> Ids:
    """The ids of `n` vectors. Raises `UserError` for a table that cannot be read, has no column of
    ids or another number of lines, and for an id that is empty or stands in it twice.
    """
    table = _read(file)
    columns = [str(name) for name in table.columns]
    column = next((name for name in COLUMNS if name in columns), "")
    if not column and len(columns) == 1:
        [column] = columns
    if not column:
        raise UserError(
            f"{file} has no column of ids ({', '.join(COLUMNS)}): it has {', '.join(columns)[:200]}"
        )
    if len(table) != n:
        raise UserError(f"{file} has {len(table)} ids, but there are {n} vectors")
    names = _texts(table, column)
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name:
            raise UserError(f"{file}, row {row + 1}: {column} is empty")
        if name in seen:
            raise UserError(f"{file}: {name[:200]!r} stands in row {seen[name] + 1} and {row + 1}")
        seen[name] = row
    return Ids(names, _texts(table, LABEL) if LABEL in columns and column != LABEL else [])


def is_content_id(name: str) -> bool:
    """Whether it is the hash of an image's bytes, by which `sae embed` knows it."""
    return bool(_CONTENT_ID.fullmatch(name))


def _read(file: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file)
        return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; --ids names a table of ids") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read as a table of ids: {reason}") from None


def _texts(table: pd.DataFrame, column: str) -> list[str]:
    values = table[column]
    return ["" if empty else str(v) for v, empty in zip(values, values.isna(), strict=True)]
