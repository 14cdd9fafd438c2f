"""A foreign JSON file, or a first line of JSON -> a dict; what is too large is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sae.core.errors import UserError
from sae.untrusted.damage import Unfit, first_bytes

MAX_JSON = 1 << 20
"""Bytes of a JSON file or line: the peers' are under 10 kB, and a value can cost 30 for one."""


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of reasonable size."""
    first_bytes(path)
    try:
        if path.stat().st_size > MAX_JSON:
            raise Unfit(f"{path.stat().st_size} bytes are too many for settings")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return values


def first_line(path: Path) -> dict[str, Any]:
    """The JSON object that is a file's first line, as saev writes it; empty if it has none."""
    if not first_bytes(path).startswith(b"{"):
        return {}
    with path.open("rb") as file:
        line = file.readline(MAX_JSON)
    try:
        header = json.loads(line)
    except (RecursionError, ValueError):
        return {}  # what follows decides: a text file, or a damaged one
    return header if isinstance(header, dict) else {}
