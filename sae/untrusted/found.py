"""A path -> the foreign files there, each opened when asked for: nothing of them is executed.

Every error is one line: an unreadable, truncated, hostile or oversized file is a `UserError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sae.core.errors import UserError
from sae.core.files import sha256_of
from sae.untrusted.damage import first_bytes
from sae.untrusted.json_file import first_line, json_object
from sae.untrusted.safetensors_file import tensor_file
from sae.untrusted.torch_file import torch_dict
from sae.untrusted.used import Used
from sae.untrusted.yaml_file import yaml_object

MAX_FILES = 10_000


@dataclass(frozen=True)
class Found:
    """What lies at a path: one file, or a folder's files. Read when asked for, and only once."""

    path: Path
    names: tuple[str, ...]
    """Files, relative to `folder`, with "/"; of a single file its own name."""
    head: bytes
    """A single file's first 64 bytes; empty for a folder."""
    named: str = ""
    """The file that was named, also where it stands for its folder; "" for a folder."""
    _read: dict[str, Used] = field(default_factory=dict, repr=False, compare=False)
    _asked: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def at(cls, path: Path | str) -> Found:
        """Look at a path. A .safetensors or .json file stands for the folder that it is in."""
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path} does not exist; `sae import` takes a file or a folder")
        if path.is_file() and path.suffix in (".safetensors", ".json"):
            first_bytes(path)
            here = sorted(p.name for p in path.parent.iterdir() if p.is_file())
            return cls(path.parent, tuple(here), b"", path.name)
        if path.is_file():
            return cls(path, (path.name,), first_bytes(path), path.name)
        return cls(path, _names(path), b"")

    @property
    def is_file(self) -> bool:
        return self.path.is_file()

    @property
    def folder(self) -> Path:
        return self.path.parent if self.is_file else self.path

    def find(self, *names: str) -> str:
        """The shortest relative path of a file with one of these names, or ""."""
        hits = [n for n in self.names if _base(n) in names]
        return min(hits, key=lambda n: (n.count("/"), n), default="")

    def beside(self, name: str, other: str) -> str:
        """`other` in the same folder as the file `name`, or "" when it is not there."""
        path = name.rpartition("/")[0]
        wanted = f"{path}/{other}" if path else other
        return wanted if wanted in self.names else ""

    def beside_named(self, suffix: str) -> list[str]:
        """Files with this suffix in the folder of the file that was named."""
        return sorted(path.name for path in self.folder.glob(f"*{suffix}") if path.is_file())

    def settings_beside(self, name: str, other: str) -> Used:
        """What the JSON or YAML file `other` in the folder of `name` holds; empty without one."""
        place = str(PurePosixPath(name).with_name(other))
        path = self.folder / place
        if not path.is_file():
            return Used({})
        read = json_object if path.suffix == ".json" else yaml_object
        return self._once(place, lambda: read(path))

    def only_one(self, weights: str, config: str) -> str:
        """The one file `weights` with a `config` beside it; several are refused, as hook points."""
        names = [n for n in self.names if _base(n) == weights and self.beside(n, config)]
        if len(names) > 1:
            some = ", ".join(n.rpartition("/")[0] or "." for n in names[:4])
            raise UserError(
                f"{self.path} holds {len(names)} SAEs ({some}); name one of the folders"
            )
        return names[0]

    def json(self, name: str) -> Used:
        """A JSON object."""
        return self._once(name, lambda: json_object(self.folder / name))

    def header(self, name: str) -> Used:
        """The JSON object that is a file's first line, as saev writes it; empty if it has none."""
        return self._once(f"first line of {name}", lambda: first_line(self.folder / name))

    def tensors(self, name: str) -> Used:
        """All tensors of a safetensors file."""
        return self._once(name, lambda: tensor_file(self.folder / name))

    def torch(self, name: str = "") -> Used:
        """The dict that a torch or pickle file holds; without a name, of the single file.

        Empty when it holds none, the path is a folder, or the file is of neither kind.
        """
        if not name and not self.is_file:
            return Used({})
        name = name or self.names[0]
        return self._once(name, lambda: torch_dict(self.folder / name, wide=True))

    def forget(self) -> None:
        """Nothing was asked for yet: what follows is what counts for `unused`."""
        self._asked.clear()
        for held in self._read.values():
            held.forget()

    def unused(self, aside: Collection[str]) -> list[str]:
        """Keys and tensors of the opened files that nobody has asked for; see `Used.unused`."""
        return [key for name in sorted(self._asked) for key in self._read[name].unused(aside)]

    def sha256(self) -> str:
        """Content hash of the largest file that tensors were read from, as 64 hex digits."""
        names = [
            n for n in self._read if n in self.names and not n.endswith((".json", ".yaml", ".yml"))
        ]
        if not names:
            return ""
        largest = max(names, key=lambda name: ((self.folder / name).stat().st_size, name))
        return sha256_of(self.folder / largest)

    def _once(self, name: str, read: Callable[[], Any]) -> Used:
        if name not in self._read:
            held = read()
            self._read[name] = Used(held if isinstance(held, dict) else {})
        self._asked.add(name)
        return self._read[name]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


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
