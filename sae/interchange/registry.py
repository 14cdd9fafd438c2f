"""registry.toml, and files of a user's own -> entries that tell where published SAEs were trained.

The first entry that fits tells a fact; what it leaves open, the next one that fits may tell.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sae.core.errors import UserError
from sae.core.files import build_strictly, did_you_mean
from sae.data.tokens import tokens_named

VARIABLE = "SAE_REGISTRY"
"""Of the environment: a file of one's own, in the place of `--registry FILE`."""
OURS = Path(__file__).with_name("registry.toml")
TABLE = "sae"
LAYER = "{layer}"
PATTERNS = ("repo", "file", "format")
_WILD = {"*": ".*", "?": ".", LAYER: r"(?P<layer>\d+)"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where the SAEs of a repository, of files of a name or of a format were trained."""

    repo: str = ""
    """Pattern of owner/name on the hub; "" here and below: any."""
    file: str = ""
    """Pattern of the end of a file's path, from the beginning of a folder's or file's name."""
    format: str = ""
    """Pattern of what `sae import` calls the format."""
    clip: str = ""
    """Name of the CLIP, as `--clip` takes it; "" here and below: not told."""
    layer: str | int = ""
    """ "projected", or a block's number."""
    tokens: str = ""
    normalise: bool | None = None
    """Whether embeddings were brought to length 1; None: not told."""
    note: str = ""
    """What a user should know."""
    source: str = ""
    """Who told it."""

    def __post_init__(self) -> None:
        patterns = [pattern for name in PATTERNS if (pattern := getattr(self, name))]
        if not patterns:
            raise UserError(f"it names none of {', '.join(PATTERNS)}, so it would be for any SAE")
        if sum(pattern.count(LAYER) for pattern in patterns) > 1:
            raise UserError(f"it has {LAYER} more than once")
        layer = str(self.layer)
        if LAYER in "".join(patterns) and layer:
            raise UserError(f"it has {LAYER} in a name and layer {layer!r} besides; leave one out")
        if layer not in ("", "projected") and not re.fullmatch(r"-?\d+", layer):
            raise UserError(f"layer {layer!r} is neither projected nor a block's number")
        if self.tokens:
            tokens_named(self.tokens)
        if layer == "projected" and self.tokens not in ("", "cls"):
            raise UserError(f"layer projected is one vector an image, which has no {self.tokens}")
        if self.normalise and layer != "projected":
            raise UserError("normalise = true is for layer projected alone")

    @property
    def name(self) -> str:
        """By which it is spoken of: its patterns."""
        return ", ".join(f"{name} {at}" for name in PATTERNS if (at := getattr(self, name)))


class Sought(NamedTuple):
    """An SAE of which the training is asked for."""

    repo: tuple[str, ...] = ()
    """owner/name, or several that it may be; without one, entries with a pattern for it do not fit.
    """
    file: tuple[str, ...] = ()
    format: tuple[str, ...] = ()


class Told(NamedTuple):
    """A fact of an entry."""

    value: str
    entry: str
    """The entry's name."""


class Facts(NamedTuple):
    """What the entries that fit tell of an SAE."""

    told: dict[str, Told]
    """Of "clip", "layer", "tokens" and "rows"."""
    notes: tuple[str, ...]


def read_registry(own: Path | None = None) -> tuple[Entry, ...]:
    """The entries of `own`, of the file that SAE_REGISTRY names, and those of the package.

    Raises `UserError`, which names the file and the entry, for the first fault.
    """
    files = [own] if own else []
    if named := os.environ.get(VARIABLE):
        files.append(Path(named))
    return tuple(entry for file in (*files, OURS) for entry in _read(file))


def find_facts(entries: Sequence[Entry], sought: Sought) -> Facts:
    """What is told of an SAE, each fact by the first entry that fits and tells it."""
    told: dict[str, Told] = {}
    notes = []
    for entry in entries:
        layer = _fit(entry, sought)
        if layer is None:
            continue
        for name, value in _facts(entry, layer).items():
            told.setdefault(name, Told(value, entry.name))
        if entry.note:
            notes.append(entry.note)
    return Facts(told, tuple(notes[:1]))


def _facts(entry: Entry, layer: str) -> dict[str, str]:
    values = {
        "clip": entry.clip,
        "layer": str(entry.layer) or layer,
        "tokens": tokens_named(entry.tokens) if entry.tokens else "",
        "rows": {None: "", True: "unit", False: "raw"}[entry.normalise],
    }
    return {name: value for name, value in values.items() if value}


def _fit(entry: Entry, sought: Sought) -> str | None:
    """The layer that stands in the SAE's names, "" without one; None where it does not fit."""
    layer = ""
    for name in PATTERNS:
        pattern = getattr(entry, name)
        if not pattern:
            continue
        regex = _regex(pattern)
        if name == "file":  # of a path, from the beginning of a folder's or file's name
            regex = f"(?:.*/)?{regex}(?:/.*)?"
        found = [re.fullmatch(regex, said, re.I | re.S) for said in getattr(sought, name)]
        hits = [hit for hit in found if hit is not None]
        if not hits:
            return None
        layer = hits[0].groupdict().get("layer") or layer
    return layer


def _regex(pattern: str) -> str:
    parts = re.split(r"(\*|\?|\{layer\})", pattern)
    return "".join(_WILD.get(part) or re.escape(part) for part in parts)


def _read(file: Path) -> list[Entry]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"the registry {file} does not exist") from None
    except OSError as error:
        raise UserError(f"the registry {file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"the registry {file} is not valid TOML: {error}") from None
    for name in values:
        if name != TABLE:
            near = did_you_mean(name, [TABLE])
            raise UserError(
                f"the registry {file} has the unknown key {name!r}; write [[sae]]{near}"
            )
    tables = values.get(TABLE)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"the registry {file} has no [[sae]]: one for each SAE that it tells of")
    return [_entry(table, file, number) for number, table in enumerate(tables, 1)]


def _entry(table: dict[str, Any], file: Path, number: int) -> Entry:
    return build_strictly(Entry, table, f"the registry {file}, [[sae]] {number},")
