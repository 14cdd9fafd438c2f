"""Automatic, scored interpretation of SAE latents.

run = interp.load("results/demo")             # .labels, .scores, .examples; run.card(17)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.report.notebook import Card, LoadedRun, load

__all__ = ["Card", "LoadedRun", "load"]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used."""
    if name not in __all__:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("interp.report.notebook"), name)
