"""How well a CLIP reads the built-in world, on scenes that no training has seen:

python -m sae.world.tiny_clip.measure            # the tiny CLIP that ships
python -m sae.world.tiny_clip.measure FOLDER     # another, as `local-dir:FOLDER`
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sae.clip.class_vectors import class_vectors
from sae.clip.model import Clip, load_clip
from sae.core.files import write_json
from sae.core.progress import bar
from sae.world.drawing.draw import draw
from sae.world.scene.captions import TEMPLATES
from sae.world.scene.concepts import BY_NAME, OBJECTS, PLANTED
from sae.world.scene.scene import Scene, concepts_of, sample

FIRST_SEED = 900 * 10_000_000
"""Where the measured scenes begin: the world of seed 900, which nothing else draws."""
MIN_POSITIVES = 20
"""Concepts that are true of fewer scenes are not measured."""


@dataclass(frozen=True)
class Quality:
    """Zero-shot accuracy over all objects, and AUROC of bare phrases by kind of concept."""

    n_scenes: int
    top1: dict[str, float]
    """By domain: the object's name is the nearest of all objects' names."""
    top5: dict[str, float]
    auroc: dict[str, float]
    """By kind: mean over its concepts; 1 = every image with the concept is nearer to its phrase."""


def measure(
    clip: Clip, n: int = 4000, progress: Callable[[int, int], None] | None = None
) -> Quality:
    """Measure on `n` fresh scenes that show one kind of object."""
    scenes = list(itertools.islice(_scenes(), n))
    image = _embed(clip, scenes, progress)  # (n, d_embed)
    truth = np.array([[c.name in concepts_of(s) for c in PLANTED] for s in scenes])
    ranks = _object_ranks(clip, image, scenes)
    domain = np.array([scene.domain for scene in scenes])
    return Quality(
        n_scenes=n,
        top1={name: float((ranks[domain == name] < 1).mean()) for name in ("sketch", "photo")},
        top5={name: float((ranks[domain == name] < 5).mean()) for name in ("sketch", "photo")},
        auroc=_auroc_by_kind(clip, image, truth),
    )


def main() -> None:
    """Print the table that stands in docs/measured.md and in the model card."""
    parser = argparse.ArgumentParser(description="Measure a CLIP on the built-in world.")
    parser.add_argument("folder", nargs="?", help="open_clip folder; without it, the one shipped")
    parser.add_argument("--n", type=int, default=4000, help="scenes")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    clip = load_clip(f"local-dir:{arguments.folder}" if arguments.folder else "tiny")
    with bar("measure", unit="scenes") as progress:
        quality = measure(clip, arguments.n, progress)
    for name in quality.top1:
        print(f"{name}: top-1 {quality.top1[name]:.3f}, top-5 {quality.top5[name]:.3f}")
    print("AUROC: " + ", ".join(f"{kind} {value:.3f}" for kind, value in quality.auroc.items()))
    if arguments.json:
        write_json(arguments.json, quality)


def _scenes() -> Iterator[Scene]:
    scenes = (sample(seed) for seed in itertools.count(FIRST_SEED))
    return (scene for scene in scenes if len(scene.names) == 1)


def _embed(
    clip: Clip, scenes: list[Scene], progress: Callable[[int, int], None] | None
) -> NDArray[np.float32]:
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(scenes), 100):
        part = scenes[start : start + 100]
        pixels = torch.stack([clip.preprocess(Image.fromarray(draw(s).pixels)) for s in part])
        rows.append(clip.image_features(pixels).cpu().numpy())
        if progress is not None:
            progress(start + len(part), len(scenes))
    return np.concatenate(rows)


def _object_ranks(
    clip: Clip, image: NDArray[np.float32], scenes: Iterable[Scene]
) -> NDArray[np.int64]:
    """(n,) how many other objects' names are nearer than the right one."""
    phrases = [BY_NAME[name].phrase for name in OBJECTS]
    similarity = image @ class_vectors(clip, phrases, TEMPLATES).cpu().numpy().T  # (n, objects)
    right = np.array([OBJECTS.index(scene.label) for scene in scenes])
    own = np.take_along_axis(similarity, right[:, None], 1)
    return np.asarray((similarity > own).sum(1))


def _auroc_by_kind(
    clip: Clip, image: NDArray[np.float32], truth: NDArray[np.bool_]
) -> dict[str, float]:
    similarity = image @ clip.embed_texts([c.phrase for c in PLANTED]).cpu().numpy().T
    by_kind: dict[str, list[float]] = {}
    for concept, scores, true in zip(PLANTED, similarity.T, truth.T, strict=True):
        if true.sum() >= MIN_POSITIVES:
            by_kind.setdefault(concept.kind, []).append(_auroc(scores, true))
    return {kind: float(np.mean(values)) for kind, values in by_kind.items()}


def _auroc(scores: NDArray[np.float32], true: NDArray[np.bool_]) -> float:
    ranks = scores.argsort().argsort() + 1
    n_true = int(true.sum())
    above = ranks[true].sum() - n_true * (n_true + 1) / 2
    return float(above / (n_true * (len(true) - n_true)))


if __name__ == "__main__":
    main()
