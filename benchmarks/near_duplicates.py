"""Copies of drawn pictures -> what grouping finds, what crosses the split, what a memoriser gains.

    python benchmarks/near_duplicates.py --pictures 1400 --json near_duplicates.json

Each picture of the built-in world lies there three times: drawn, saved again as a JPEG of quality
60 to 95, and as a thumbnail of half the size. All go through the built-in CLIP into a store. A
memoriser grades a held-out image by the nearest of the images that the namer was shown; its latents
are random sets of pictures, so that whatever it scores above .5 it has from copies.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from interp.evidence.config import CollectConfig
from interp.evidence.groups.find import find_groups
from interp.evidence.groups.hashes import read_hashes
from interp.evidence.groups.named import read_named
from interp.records.split import split_of
from sae.clip.embed import embed
from sae.clip.model import load_clip
from sae.data.sources.folders import find_images, parse_domains
from sae.data.store import EmbeddingStore
from sae.data.store_format import Source
from sae.world import draw, sample

KINDS = ("drawn", "again", "small")
N_LATENTS, N_ACTIVE, N_SHOWN, N_TESTED = 300, 42, 16, 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.pictures, options.seed)
    print("\n".join(f"{name:28}{value:.5g}" for name, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(folder: Path, n: int, seed: int) -> dict[str, float]:
    """All figures, by name."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        save(folder / "photo", number, draw(sample(seed * 10_000_000 + number), 128)[0], rng)
    roots = parse_domains([f"photo={folder / 'photo'}"])
    source = Source("tiny", "projected", "cls")
    embed(find_images(roots), roots, {folder / "store": source}, load_clip("tiny", "cpu"))
    store = EmbeddingStore.open(folder / "store")
    started = time.process_time()
    hashes = read_hashes(store, folder)
    hashed = time.process_time()
    groups, found = find_groups(store, folder, CollectConfig(), read_named(store, None))
    names = [Path(path).stem.split("-") for path in store.images["path"]]
    picture, kind = (
        np.array([int(name[0]) for name in names]),
        np.array([name[1] for name in names]),
    )
    ids = store.images["image_id"].tolist()
    known = [groups.name(row) or ids[row] for row in range(len(ids))]
    x = store.read(np.arange(len(ids)))[:, 0].float().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    grouped, before = (np.array([split_of(g) for g in of]) for of in (known, ids))
    twins = twin_pairs(hashes.values, x)
    of_drawn = {p: g for p, k, g in zip(picture, kind, known, strict=True) if k == "drawn"}
    same = np.array([of_drawn[p] == g for p, g in zip(picture, known, strict=True)])
    distinct = np.array(list(of_drawn.values()))
    first, second = np.triu_indices(len(distinct), 1)
    return {
        "images": len(ids),
        "saved again, found": float(same[kind == "again"].mean()),
        "thumbnails, found": float(same[kind == "small"].mean()),
        "pairs of pictures joined": float((distinct[first] == distinct[second]).mean()),
        "pictures in one with another": float(1 - len(set(distinct.tolist())) / len(distinct)),
        "largest group": found.largest_group,
        "twin pairs": len(twins),
        "of them across, grouped": int((grouped[twins[:, 0]] != grouped[twins[:, 1]]).sum()),
        "of them across, by image": int((before[twins[:, 0]] != before[twins[:, 1]]).sum()),
        "memoriser, grouped": memorise(x, picture, grouped == "explain", rng),
        "memoriser, by image": memorise(x, picture, before == "explain", rng),
        "seconds of CPU to hash": hashed - started,
        "seconds of CPU to group": time.process_time() - hashed,
    }


def save(folder: Path, number: int, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """A picture in its three files."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image.save(folder / f"{number}-drawn.png", compress_level=1)
    image.save(folder / f"{number}-again.jpg", quality=int(rng.integers(60, 96)))
    image.resize((64, 64), Image.Resampling.BICUBIC).save(
        folder / f"{number}-small.jpg", quality=90
    )


def twin_pairs(hashes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n, 2) all pairs by the rule, every pair looked at."""
    found = []
    for row in range(len(x)):
        distance = np.bitwise_count(hashes[row] ^ hashes[row + 1 :])
        alike = (x[row + 1 :] @ x[row] > 0.95) & (distance <= 8)
        others = row + 1 + np.flatnonzero(alike | (distance <= 4))
        found += [(row, other) for other in others.tolist()]
    return np.array(found).reshape(-1, 2)


def memorise(
    x: np.ndarray, picture: np.ndarray, is_explain: np.ndarray, rng: np.random.Generator
) -> float:
    """Mean AUROC of the memoriser over latents that are active on random sets of pictures."""
    return float(np.mean([_memorise(x, picture, is_explain, rng) for _ in range(N_LATENTS)]))


def _memorise(
    x: np.ndarray, picture: np.ndarray, is_explain: np.ndarray, rng: np.random.Generator
) -> float:
    acts = np.zeros(picture.max() + 1)
    acts[rng.choice(len(acts), N_ACTIVE, replace=False)] = rng.uniform(0.2, 1, N_ACTIVE)
    strength = acts[picture] * rng.uniform(0.9, 1.1, len(picture))
    seen, held_out = np.flatnonzero(is_explain), np.flatnonzero(~is_explain)
    shown = seen[np.argsort(-strength[seen])][:N_SHOWN]
    sides: Sequence[np.ndarray] = [
        held_out[strength[held_out] > 0],
        held_out[strength[held_out] == 0],
    ]
    tested = np.concatenate([rng.choice(s, min(N_TESTED, len(s)), replace=False) for s in sides])
    return float(roc_auc_score(strength[tested] > 0, (x[tested] @ x[shown].T).max(1)))


if __name__ == "__main__":
    main()
