"""Automatic, scored interpretation of SAE latents.

run = interp.load("results/demo")             # .labels, .scores, .examples; run.card(17)
labels = interp.read_labels("work/pulled")    # of a run, or of an SAE pulled with its labels
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.report.labels import read_labels
    from interp.report.notebook import Card, LoadedRun, load

__all__ = ["Card", "LoadedRun", "load", "read_labels"]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used."""
    if name not in __all__:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    import importlib

    home = "labels" if name == "read_labels" else "notebook"
    return getattr(importlib.import_module(f"interp.report.{home}"), name)
