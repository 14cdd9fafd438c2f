"""Does `interp compare` find what was changed? A class's colour, red in one world, blue in another.

    python benchmarks/changed_colour.py results/demo --json changed.json

RUN is a finished `interp demo`. Of each class some photo scenes are drawn twice, all of its objects
red and then blue, everything else as it was, and read by the run's CLIP and SAE. Planted are the
live latents that are pure for red (they fall) and for blue (they rise), as `interp/bench/truth.py`
has them; every other latent that is said to rise or fall in the class is false. Each class is a
comparison of its own.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.sparse import csr_array  # noqa: E402

from interp.bench.truth import PURE, find_planted, read_truth  # noqa: E402
from interp.evidence.compare.changes import find_changes  # noqa: E402
from interp.evidence.dense_latents import open_subject  # noqa: E402
from interp.evidence.stream.activations import reduce_to_images  # noqa: E402
from interp.run.run import Run  # noqa: E402
from sae.clip.store_images import load_clip_of  # noqa: E402
from sae.clip.vectors import embed_batch  # noqa: E402
from sae.world.drawing.draw import draw_pixels  # noqa: E402
from sae.world.scene.scene import Scene, sample  # noqa: E402


class Reader:
    """A run's CLIP and SAE on drawn scenes."""

    def __init__(self, run: Run) -> None:
        store = run.evidence.store
        self._info, self._model = store.info, open_subject(run.sae, store)[1]
        self._clip = load_clip_of(store, "cpu")

    def activations(self, scenes: Sequence[Scene]) -> NDArray[np.float32]:
        """(n, n_latents)."""
        found = np.zeros((len(scenes), self._model.n_latents), np.float32)
        for start in range(0, len(scenes), 64):
            images = [Image.fromarray(draw_pixels(one)) for one in scenes[start : start + 64]]
            pixels = [self._clip.preprocess.resize(image) for image in images]
            [x] = embed_batch(self._clip, [self._info], pixels)
            with torch.inference_mode():
                codes = self._model.encode(x.flatten(0, 1).float())
            acts = reduce_to_images(codes.acts[:, None], codes.latents[:, None], found.shape[1])
            found[start + acts.images, acts.latents] = acts.acts
        return found


def paint(scene: Scene, colour: str) -> Scene:
    """The scene with all objects of its class in one colour."""
    objects = tuple(
        replace(placed, colour=colour) if placed.name == scene.label else placed
        for placed in scene.objects
    )
    return replace(scene, objects=objects)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--scenes", type=int, default=40, help="of each class")
    parser.add_argument("--least", type=float, nargs="+", default=[0, 0.05, 0.1, 0.15])
    parser.add_argument("--colours", nargs=2, default=["red", "blue"], help="before and after")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    run, (before, after) = Run(given.run), given.colours
    truth = read_truth(given.run / "world" / "truth.parquet")
    found = find_planted(run.evidence, truth)
    pure = {
        name: {
            n
            for n in run.evidence.live()
            if found.purity[n] >= PURE and found.names[found.concept[n]] == name
        }
        for name in given.colours
    }
    expected = dict.fromkeys(pure[before], -1) | dict.fromkeys(pure[after], 1)
    photos, reader = truth[truth["domain"] == "photo"], Reader(run)
    means = np.nan_to_num(run.evidence.latents["mean_act"].to_numpy(np.float64))
    counts = {least: np.zeros(3, int) for least in given.least}  # right, false, planted
    classes = sorted(photos["label"].unique())
    for name in classes:
        seeds = photos[photos["label"] == name]["seed"].tolist()[: given.scenes]
        scenes = [sample(seed, "photo") for seed in seeds]
        sides = [reader.activations([paint(s, colour) for s in scenes]) for colour in given.colours]
        changes = find_changes(*map(csr_array, sides), np.zeros(len(scenes), np.int64), 1)
        for least, count in counts.items():
            signs = changes.signs(least * means)
            here = (signs != 0) & (changes.classes >= 0)
            pairs = zip(changes.latents[here].tolist(), signs[here].tolist(), strict=True)
            right = sum(expected.get(latent) == sign for latent, sign in pairs)
            count += (right, int(here.sum()) - right, len(expected))
    figures: dict[str, float | int] = {"classes": len(classes), "scenes": given.scenes}
    for least, (right, false, wanted) in counts.items():
        figures[f"least {least:g}/precision"] = round(right / max(right + false, 1), 4)
        figures[f"least {least:g}/recall"] = round(right / wanted, 4)
        figures[f"least {least:g}/false"] = int(false)
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
