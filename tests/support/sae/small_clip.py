"""A random CLIP of the built-in one's shape, small enough for tests, and images for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file

from tests.support.paths import ROOT

VOCABULARY = ROOT / "sae" / "world" / "tiny_clip" / "vocab.txt.gz"
VIT = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}
PREPROCESS = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.28, 0.27, 0.26],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def small_clip(
    folder: Path,
    vision: dict[str, Any] = VIT,
    seed: int = 0,
    siglip: bool = False,
    preprocess: dict[str, Any] = PREPROCESS,
    texts: dict[str, Any] | None = None,
) -> str:
    """Write a model in open_clip's format into `folder`; return its name for `load_clip`.

    `texts` are settings of the text tower in place of the usual ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(VOCABULARY, folder.parent / VOCABULARY.name)
    text = {
        "context_length": 20,
        "vocab_size": SimpleTokenizer(str(VOCABULARY)).vocab_size,
        "width": 64,
        "heads": 2,
        "layers": 1,
        "tokenizer_kwargs": {"bpe_path": f"../{VOCABULARY.name}"},
        **(texts or {}),
    }
    config = {"embed_dim": 64 if siglip else 32, "vision_cfg": vision, "text_cfg": text}
    config |= {"init_logit_bias": -10} if siglip else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = (CustomTextCLIP if siglip else CLIP)(**config).half().state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    config |= {"custom_text": True} if siglip else {}
    whole = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    return f"local-dir:{folder}"


def write_images(root: Path, n: int, seed: int = 0) -> list[Path]:
    """n small images of different sizes, in two classes; all contents differ."""
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(n):
        path = root / f"class{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (20 + number % 7, 24 + number % 5)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths
