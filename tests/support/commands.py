"""Both command lines, run in this process, and the folders of a finished walk."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from interp.cli.app import app as interp_app
from sae.cli import console
from sae.cli.app import app as sae_app


class Walk(NamedTuple):
    """Folders of a walk; nothing is explained or scored yet."""

    world: Path
    store: Path
    sae: Path
    run: Path


def sae(*words: object) -> int:
    """Run the command line `sae` in this process; the exit code comes back."""
    return console.run(sae_app, "sae", [str(word) for word in words])


def interp(*words: object) -> int:
    """Run the command line `interp` in this process; the exit code comes back."""
    return console.run(interp_app, "interp", [str(word) for word in words])
