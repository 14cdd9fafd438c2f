"""Everything that opens a foreign file: nothing is executed, nothing huge is allocated.

Every error is one line: an unreadable, truncated, hostile or oversized file is a `UserError`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sae.core.errors import UserError
from sae.core.files import sha256_of
from sae.untrusted.safetensors_file import tensor_file
from sae.untrusted.torch_file import first_bytes, torch_dict
from sae.untrusted.unpickle import Stub, Unfit

__all__ = ["Found", "json_object", "one_line", "settings_of", "tensor_file", "torch_dict"]

MAX_JSON = 1 << 20
"""Bytes of a JSON file or line: the peers' are under 10 kB, and a value can cost 30 for one."""
MAX_FILES = 10_000


@dataclass(frozen=True)
class Found:
    """What lies at a path: one file, or a folder's files. Read when asked for, and only once."""

    path: Path
    names: tuple[str, ...]
    """Files, relative to `folder`, with "/"; of a single file its own name."""
    head: bytes
    """A single file's first 64 bytes; empty for a folder."""
    _read: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, path: Path | str) -> Found:
        """Look at a path. A .safetensors or .json file stands for the folder that it is in."""
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path} does not exist; `sae import` takes a file or a folder")
        if path.is_file() and path.suffix in (".safetensors", ".json"):
            first_bytes(path)
            here = sorted(p.name for p in path.parent.iterdir() if p.is_file())
            return cls(path.parent, tuple(here), b"")
        if path.is_file():
            return cls(path, (path.name,), first_bytes(path))
        return cls(path, _names(path), b"")

    @property
    def is_file(self) -> bool:
        return self.path.is_file()

    @property
    def folder(self) -> Path:
        return self.path.parent if self.is_file else self.path

    def find(self, *names: str) -> str:
        """The shortest relative path of a file with one of these names, or ""."""
        hits = [n for n in self.names if n.rpartition("/")[2] in names]
        return min(hits, key=lambda n: (n.count("/"), n), default="")

    def beside(self, name: str, other: str) -> str:
        """`other` in the same folder as the file `name`, or "" when it is not there."""
        path = name.rpartition("/")[0]
        wanted = f"{path}/{other}" if path else other
        return wanted if wanted in self.names else ""

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        return cast(dict[str, Any], self._once(name, lambda: json_object(self.folder / name)))

    def header(self, name: str) -> dict[str, Any]:
        """The JSON object that is a file's first line, as saev writes it; empty if it has none."""
        return _header(self.folder / name)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All tensors of a safetensors file."""
        return cast(dict[str, Tensor], self._once(name, lambda: tensor_file(self.folder / name)))

    def torch(self, name: str = "") -> Any:
        """What a torch or pickle file holds; without a name, of the single file.

        None when the path is a folder or the file is of neither kind.
        """
        if not name and not self.is_file:
            return None
        name = name or self.names[0]
        return self._once(name, lambda: torch_dict(self.folder / name, wide=True))

    def sha256(self) -> str:
        """Content hash of the largest file that tensors were read from, as 64 hex digits."""
        names = [n for n in self._read if n in self.names and not n.endswith(".json")]
        if not names:
            return ""
        largest = max(names, key=lambda name: ((self.folder / name).stat().st_size, name))
        return sha256_of(self.folder / largest)

    def _once(self, name: str, read: Any) -> Any:
        if name not in self._read:
            self._read[name] = read()
        return self._read[name]


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


def one_line(text: str, n_max: int = 600) -> str:
    """What a foreign file says, fit for a terminal: one line, printable, not endless."""
    line = " ".join(text[: 4 * n_max].split())
    line = "".join(sign if sign.isprintable() else "?" for sign in line)
    return line if len(line) <= n_max else line[:n_max] + "..."


def settings_of(config: object) -> dict[str, Any]:
    """A pickled config as plain values: a dict stays, a stub gives what it holds."""
    if isinstance(config, Stub):
        return config.settings
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    return {}


def _header(path: Path) -> dict[str, Any]:
    if not first_bytes(path).startswith(b"{"):
        return {}
    with path.open("rb") as file:
        line = file.readline(MAX_JSON)
    try:
        header = json.loads(line)
    except (RecursionError, ValueError):
        return {}  # what follows decides: a text file, or a damaged one
    return header if isinstance(header, dict) else {}


def _names(folder: Path) -> tuple[str, ...]:
    names: list[str] = []
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        if len(here.parts) > 4:
            folders.clear()
        names += [(here / name).as_posix() for name in files]
        if len(names) > MAX_FILES:
            raise UserError(f"{folder} has more than {MAX_FILES} files; name the SAE's own folder")
    return tuple(sorted(names))
