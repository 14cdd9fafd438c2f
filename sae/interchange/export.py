"""Ours for other libraries; and the folder that an import or an export may write to."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from sae.core.errors import UserError
from sae.model.sae import CONFIG, SAE, WEIGHTS


class Writer(NamedTuple):
    """A library that we write for."""

    library: str
    load: str
    """How it loads the folder {}."""
    marker: str
    """The file that stands in a finished folder."""


WRITERS = {
    "sparsify": Writer("sparsify", 'SparseCoder.load_from_disk("{}")', "cfg.json"),
    "saelens": Writer("sae_lens", 'SAE.load_from_disk("{}")', "cfg.json"),
}
"""By name of the module in this room that has `write`."""
_SAE_FILES = (CONFIG, "cfg.json", WEIGHTS, "sae_weights.safetensors")
_OF_ANOTHER = ("eval.json", "train.json", "train.jsonl", "lr.json")


class _Writing(Protocol):
    def write(self, model: SAE, folder: Path) -> Path: ...


def export_to(model: SAE, name: str, out: Path | str) -> None:
    """Write for a library of `WRITERS`. Raises `UserError` for maths that it does not have.

    It takes the place of an SAE in `out`, once it has been written.
    """
    if name not in WRITERS:
        raise UserError(f"--to {name!r} is none of {', '.join(WRITERS)}")
    writing = cast(_Writing, importlib.import_module(f"sae.interchange.formats.{name}"))
    out = Path(out)
    part = out.with_name(out.name + ".part")
    try:
        writing.write(model, part)
        make_room(out)
        # The settings last: without them a folder is unfinished.
        for path in sorted(part.iterdir(), key=lambda path: path.name == WRITERS[name].marker):
            os.replace(path, out / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_room(out: Path | str, source: Path | str, overwrite: bool = False) -> None:
    """Raise `UserError` when writing to the folder `out` would destroy an SAE, or the source.

    With `overwrite` the SAE in `out` may go, but never the source.
    """
    out, source = Path(out), Path(source)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    folder = source.parent if source.is_file() else source
    if out.exists() and folder.exists() and out.samefile(folder):
        raise UserError(f"--out {out} is where {source} lies; give another folder")
    there = _there(out)
    if there and not overwrite:
        raise UserError(f"{out} has {there[0]}: an SAE is there; give another --out or --overwrite")


def make_room(out: Path | str) -> None:
    """An `out` without the SAE that is there, and without what was measured of it."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in [*_there(out), *_OF_ANOTHER]:
        (out / name).unlink(missing_ok=True)


def _there(out: Path) -> list[str]:
    """Files of an SAE in a folder, the settings first."""
    return [name for name in _SAE_FILES if (out / name).exists()]
