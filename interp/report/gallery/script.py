"""Values -> the page's data files: scripts that call a function of its one global."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

to_text = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
"""JSON as data files have it, before `escape`."""


def script_json(value: Any) -> str:
    """JSON that is safe inside a script of any kind: ASCII only, without <, > and &."""
    return escape(to_text(value))


def escape(text: str) -> str:
    """JSON that is ASCII -> JSON that is safe inside a script."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_call(path: Path, function: str, *values: Any) -> None:
    """A script that calls `G.<function>` with these values."""
    write_script(path, f"G.{function}({','.join(map(script_json, values))});")


def write_script(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="ascii")
