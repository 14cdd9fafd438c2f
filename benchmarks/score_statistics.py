"""Oracle judges of known AUROC -> cover and bias of the intervals of `interp score`.

    python benchmarks/score_statistics.py --latents 500

A latent is a draw of images, grades and calls; what its figures should say is known (`World`). A
line for each AUROC, number of images, share of lost answers and level of calls.
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np

from interp.records.types import Kind, Verdict
from interp.score.figures import figures_of
from tests.support.interp.oracles import World

AREAS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 1.0)
TESTS = ((20, 4), (8, 2))
"""Active images, as many silent ones, and calls."""
FAULTS = ((0.0, 0.0), (0.1, 0.0), (0.25, 0.0), (0.0, 0.5))
"""Share of lost answers, and level of calls in deviations of the grades."""
KINDS: tuple[Kind, ...] = ("quantile", "silent", "hard")


class Cover(NamedTuple):
    """Of one figure over many latents."""

    bias: float
    cover: float
    """Share of the 95% intervals that hold the truth."""
    width: float


def measure(world: World, n: int, n_calls: int, n_latents: int, seed: int) -> tuple[Cover, Cover]:
    """AUROC and rho of `n_latents` tests of n + n images."""
    rng = np.random.default_rng([seed, n, n_calls, round(1000 * world.area)])
    areas, rhos = [], []
    for _ in range(n_latents):
        judged, calls = world.test(rng, n, n_calls)
        verdicts = [
            Verdict(str(i), i, kind == 0, act, -1, KINDS[kind], "", score, call, weight)
            for i, (grade, act, weight, kind, call) in enumerate(
                zip(*(part.tolist() for part in (*judged, calls)), strict=True)
            )
            for score in [None if math.isnan(grade) else grade]
        ]
        found = figures_of(verdicts)
        areas.append((found.auroc, found.auroc_low, found.auroc_high))
        rhos.append((found.rho, found.rho_low, found.rho_high))
    return _cover(areas, world.target), _cover(rhos, world.rho)


def _cover(found: list[tuple[float, float, float]], truth: float) -> Cover:
    value, low, high = np.array(found).T
    held = (low <= truth + 1e-9) & (high >= truth - 1e-9)
    return Cover(float(value.mean() - truth), float(held.mean()), float((high - low).mean()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latents", type=int, default=500)
    parser.add_argument("--base-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| images | AUROC | lost | offset | bias | cover | width | rho | bias | cover | width |")
    print("|" + "---|" * 11)
    for n, n_calls in TESTS:
        for area in AREAS:
            for lost, offset in FAULTS:
                world = World(area, given.base_rate, offset, lost)
                area_cover, rho_cover = measure(world, n, n_calls, given.latents, given.seed)
                figures = (
                    f"{one.bias:+.3f} | {one.cover:.3f} | {one.width:.3f}"
                    for one in (area_cover, rho_cover)
                )
                first, second = figures
                test = f"{n} + {n} | {area} | {lost} | {offset}"
                line = f"| {test} | {first} | {world.rho:.3f} | {second} |"
                print(line, flush=True)


if __name__ == "__main__":
    main()
