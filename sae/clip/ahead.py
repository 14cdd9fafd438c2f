"""A CLIP's name -> the shape of its vectors, before weights are loaded or fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from sae.clip.config import SourceConfig
from sae.clip.names import open_clip_module, resolve_name

WIDTH, PATCH, SIZE, LAYERS = 768, 16, 224, 12
"""What open_clip takes where a model's configuration is silent."""


class Shape(NamedTuple):
    """Of the vectors of one image."""

    d: int
    tokens: int
    grid: tuple[int, int] | None
    """(h, w) of the patches; None without patches."""

    def n_bytes(self, dtype: str) -> int:
        """Of one image in a store."""
        return self.d * self.tokens * (2 if dtype == "float16" else 4)


def shape_ahead(source: SourceConfig) -> Shape | None:
    """The shape of a store of `source`; None where only the loaded model would tell.

    Reads what is on this machine alone. Raises `UserError` for a name that does not exist.
    """
    request = resolve_name(source.clip)
    if request.model.startswith("hf-hub:"):
        return None
    model = _config(request.model)
    if source.layer == "projected":
        return Shape(int(model["embed_dim"]), 1, None)
    tower: dict[str, Any] = model["vision_cfg"]
    if "timm_model_name" in tower or not isinstance(tower.get("layers", LAYERS), int):
        return None
    side = tower.get("image_size", SIZE)
    side = side[0] if isinstance(side, list) else side
    n = int(side) // int(tower.get("patch_size", PATCH))
    tokens = {"cls": 1, "patch": n * n, "all": n * n + 1}[source.tokens]
    grid = None if source.tokens == "cls" else (n, n)
    return Shape(int(tower.get("width", WIDTH)), tokens, grid)


def block_ahead(clip: str, layer: str) -> str:
    """A block that counts from the end, from the beginning: "-2" of ViT-B-16/openai is "10".

    "" where only the loaded model would tell. Raises `UserError` for a name that does not exist.
    """
    request = resolve_name(clip)
    if request.model.startswith("hf-hub:"):
        return ""
    tower: dict[str, Any] = _config(request.model)["vision_cfg"]
    n_blocks = tower.get("layers", LAYERS)
    if "timm_model_name" in tower or not isinstance(n_blocks, int):
        return ""
    block = n_blocks + int(layer)
    return str(block) if 0 <= block < n_blocks else ""


def _config(model: str) -> dict[str, Any]:
    """open_clip's configuration: what its package has, or the file beside local weights."""
    schema, _, folder = model.partition(":")
    if schema == "local-dir":
        text = (Path(folder) / "open_clip_config.json").read_text(encoding="utf-8")
        return dict(json.loads(text)["model_cfg"])
    return dict(open_clip_module().get_model_config(model))
