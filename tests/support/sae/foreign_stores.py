"""Other labs' embeddings for tests, written as their own code writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sae.data.store import EmbeddingStore
from tests.support.paths import DATA

SAEV = DATA / "saev_store_v21" / "checkpoint" / "saev" / "shards" / "c932aa18"
CHUNKS = DATA / "ttt_chunks" / "checkpoint"
LATENTS = DATA / "clipsae_latents" / "checkpoint"


_KEYS = {
    "2.1": ("family", "ckpt", "content_tokens_per_example", "d_model", "max_tokens_per_shard"),
    "2.0": ("family", "ckpt", "patches_per_ex", "d_model", "patches_per_shard"),
    "1.0.0": ("vit_family", "vit_ckpt", "n_patches_per_img", "d_vit", "max_patches_per_shard"),
    "": ("vit_family", "vit_ckpt", "n_patches_per_img", "d_vit", "n_patches_per_shard"),
}


def values(n: int, n_layers: int, n_tokens: int, d: int) -> NDArray[np.float32]:
    """(n, layers, tokens, d), all different."""
    return np.arange(1, n * n_layers * n_tokens * d + 1, dtype=np.float32).reshape(
        n, n_layers, n_tokens, d
    )


def write_saev(
    folder: Path,
    x: NDArray[np.float32],  # (n, layers, tokens, d)
    layers: list[int],
    *,
    cls: bool = True,
    told_cls: bool | None = None,
    per_shard: int = 4,
    spare: int = 0,
    protocol: str = "2.1",
) -> Path:
    """As saev's ShardWriter: files of full size, and one more, empty, when the last is filled up.

    `spare` tokens more than `per_shard` examples need are allowed a file; `told_cls` is what the
    metadata say, where that is not what is there.
    """
    n, n_layers, n_tokens, d = x.shape
    folder.mkdir(parents=True)
    family, ckpt, patches, width, budget = _KEYS[protocol]
    count = "n_examples" if protocol.startswith("2") else "n_imgs"
    metadata: dict[str, Any] = {
        family: "clip",
        ckpt: "ViT-B-16/openai",
        "layers": layers,
        patches: n_tokens - cls,
        "cls_token": cls if told_cls is None else told_cls,
        width: d,
        count: n,
        budget: per_shard * n_layers * n_tokens + spare,
        "data": {"__class__": "Fake"} if protocol == "1.0.0" else "Config(n=1)",
    }
    if protocol:
        metadata |= {"dtype": "float32", "protocol": protocol}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    manifest = []
    for shard in range(n // per_shard + 1):  # the last of a full number is empty
        part = x[shard * per_shard : (shard + 1) * per_shard]
        whole = np.zeros((per_shard, *x.shape[1:]), "<f4")
        whole[: len(part)] = part
        name = f"acts{shard:06d}.bin"
        whole.tofile(folder / name)
        manifest.append({"name": name, count: len(part)})
    if protocol:
        (folder / "shards.json").write_text(json.dumps(manifest))
    return folder


def write_chunks(folder: Path, sizes: list[int], d: int = 6, first: int = 0, **keep: Any) -> Path:
    """batch_%05d.pt; every number is another. `keep` goes to torch.save."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for number, n in enumerate(sizes, start=first):
        rows = torch.arange(start, start + n)
        chunk = {"embeddings": rows[:, None] + torch.arange(d) / 10, "labels": rows // 3}
        torch.save(chunk, folder / f"batch_{number:05d}.pt", **keep)
        start += n
    return folder


def write_images(folder: Path, names: list[str]) -> Path:
    """Small images, all different, in sub-folders as their names tell."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (number, 50, 200 - number)).save(folder / name)
    return folder


def image_names(labels: list[str]) -> list[str]:
    """One file an image, in sub-folders called after the labels, in the order of the labels."""
    return [f"{label}/{number:04d}.png" for number, label in enumerate(labels)]


def all_vectors(store: EmbeddingStore) -> torch.Tensor:
    return store.read(np.arange(store.info.n_images))
