"""labels.csv -> a table with its labels as they were written: "NA" is a label, "" is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from sae.core.csv_cells import read_cell
from sae.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = (
    *("interpretation", "label", "second_label", "description", "verdict"),
    *("human_verdict", "human_label", "human_note"),
    *("supported", "best_null", "status", "reason", "note", "stopped", "domain", "provenance"),
    *("explainer", "scorer", "circular", "causal", "transfer", "beats_linear"),
)
"""Columns of words; all others are numbers."""
COUNT_COLUMNS = ("n_positive", "n_negative", "n_missing")


def read_label_table(data: bytes, name: str) -> pd.DataFrame:
    """The table of a file's bytes. Numbers that are missing are NaN (counts: <NA>).

    Raises `UserError`, which begins with `name`, where it is damaged.
    """
    import pandas as pd

    try:
        columns = pd.read_csv(io.BytesIO(data), nrows=0, encoding="utf-8-sig").columns
        texts = [column for column in TEXT_COLUMNS if column in columns]
        table = pd.read_csv(
            io.BytesIO(data),
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values={column: [""] for column in columns if column not in texts},
            dtype={**dict.fromkeys(texts, "str"), **dict.fromkeys(COUNT_COLUMNS, "Int64")},
        )
        for column in texts:
            table[column] = table[column].map(read_cell)
    except (LookupError, OverflowError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{name} is damaged ({said})") from None
    return table
