"""Ours for other libraries; and the folder that an import or an export may write to."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from sae.core.errors import UserError
from sae.core.files import replacing_folder
from sae.core.output import require_own
from sae.model.sae import CONFIG, SAE, WEIGHTS


class Writer(NamedTuple):
    """A library that we write for."""

    library: str
    load: str
    """How it loads the folder {}."""


WRITERS = {
    "sparsify": Writer("sparsify", 'SparseCoder.load_from_disk("{}")'),
    "saelens": Writer("sae_lens", 'SAE.load_from_disk("{}")'),
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
    with replacing_sae(out) as part:
        writing.write(model, part)


def require_room(out: Path | str, source: Path | str, overwrite: bool = False) -> None:
    """Raise `UserError` when `out` holds something else than an SAE, or one, or the source.

    With `overwrite` the SAE in `out` may go, but never the source.
    """
    out, source = Path(out), Path(source)
    folder = source.parent if source.is_file() else source
    if out.exists() and folder.exists() and out.samefile(folder):
        raise UserError(f"--out {out} is where {source} lies; give another folder")
    there = _there(out)
    if there and not overwrite:
        raise UserError(f"{out} has {there[0]}: an SAE is there; give another --out or --overwrite")
    require_own(out, "SAE", bool(there))


@contextmanager
def replacing_sae(out: Path | str) -> Iterator[Path]:
    """Yield an empty folder for an SAE; it becomes `out`, complete or not at all.

    What else lies in `out` stays; an SAE that is there, and what was measured of it, does not.
    """
    out = Path(out).resolve() if Path(out).is_symlink() else Path(out)
    with replacing_folder(out) as part:
        yield part
        for path in sorted(out.iterdir()) if out.is_dir() else ():
            if path.name in (*_SAE_FILES, *_OF_ANOTHER) or path.name.endswith((".part", ".lock")):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, part / path.name, symlinks=True, copy_function=_link)
            else:
                _link(path, part / path.name)


def _link(path: Path | str, target: Path | str) -> None:
    """The same file under another name too, or a copy where the disk has no such links."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, target, follow_symlinks=False)


def _there(out: Path) -> list[str]:
    """Files of an SAE in a folder, the settings first."""
    return [name for name in _SAE_FILES if (out / name).exists()]
