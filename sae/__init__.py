"""CLIP embeddings of sketches and photos, and sparse autoencoders on them.

model = sae.load("results/demo/sae")          # -> sae.SAE
store = sae.EmbeddingStore.open("store")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae.clip.model import load_clip
    from sae.data.store import EmbeddingStore
    from sae.interchange.load import load
    from sae.model.sae import SAE, Codes

__all__ = ["SAE", "Codes", "EmbeddingStore", "load", "load_clip"]

_HOMES = {
    "SAE": "sae.model.sae",
    "Codes": "sae.model.sae",
    "load": "sae.interchange.load",
    "EmbeddingStore": "sae.data.store",
    "load_clip": "sae.clip.model",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: torch alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sae' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
