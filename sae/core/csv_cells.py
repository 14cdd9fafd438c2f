"""Text -> a cell of a CSV file that no spreadsheet takes for a formula, and back; marked labels."""

from __future__ import annotations

import re

# A spreadsheet runs a cell that begins so. A leading ' keeps it text; cells that begin with ' and
# such a sign get one more, so that reading takes off exactly what writing put on.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_SPECIAL = re.compile(r'[",\r\n]')


UNCLEAR = "unclear"
"""Verdict of an explainer whose label is a guess."""
_MARK = f" ({UNCLEAR})"


def mark_label(label: str, verdict: str) -> str:
    """The label as people are shown it: a guess has a mark behind it, once."""
    guess = bool(label) and verdict == UNCLEAR and _MARK not in label
    return f"{label}{_MARK}" if guess else label


def write_cell(text: str) -> str:
    """As it stands in the file, in quotes where it must be."""
    cell = f"'{text}" if _FORMULA.match(text) else text
    # Not csv.writer: before Python 3.13 it leaves a lone \r bare, and the row falls in two.
    return '"' + cell.replace('"', '""') + '"' if _SPECIAL.search(cell) else cell


def read_cell(cell: str) -> str:
    """What was written, from a cell as a CSV reader gives it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
