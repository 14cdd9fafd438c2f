"""Oracle judges of known AUROC -> cover and bias of the intervals of `interp score`.

    python benchmarks/score_statistics.py --latents 500 [--adaptive]

A latent is a draw of images, grades and calls; what its figures should say is known (`World`). A
line for each AUROC, number of images, share of lost answers and level of calls.
"""

from __future__ import annotations

import argparse
import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.records.types import Kind, Verdict
from interp.score.figures import figures_of, sure_side
from interp.score.sampling import ADAPTIVE, even_sizes, look_ends
from interp.score.statistics.population import Judged
from interp.score.statistics.sequence import critical_values
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
        found = figures_of(_verdicts(judged, calls))
        areas.append((found.auroc, found.auroc_low, found.auroc_high))
        rhos.append((found.rho, found.rho_low, found.rho_high))
    return _cover(areas, world.target), _cover(rhos, world.rho)


class Adaptive(NamedTuple):
    """Of adaptive tests over many latents."""

    cover: float
    """Share of the latents of which the intervals of all looks hold the true AUROC."""
    cover_hard: float
    """Likewise of the AUROC against hard images."""
    cover_rho: float
    at_end: float
    """Share of which the interval of the last look that was taken holds the true AUROC."""
    bias: float
    """Of the AUROC when the test ended."""
    calls: float
    """Share of the calls of a fixed test of all images, in calls of the same size."""
    above: float
    """Share of the latents that end above chance."""
    same: float
    """Share whose label is on the same side of chance, or on neither, in a fixed test of all."""
    contrary: float
    """Share that is above chance in one and below it in the other."""
    same_20: float
    """Share that is as in a fixed test of 20 + 20."""


def measure_adaptive(
    world: World, n_latents: int, seed: int, values: Sequence[float] | None = None
) -> Adaptive:
    """`values`: standard errors at each look, by default those that `interp score` takes."""
    rng = np.random.default_rng([seed, round(1000 * world.area)])
    n = ADAPTIVE.n_positive + ADAPTIVE.n_negative
    ends = look_ends(ADAPTIVE, n)
    parts = zip((0, *ends), ends, strict=False)
    sizes = [even_sizes(end - start, ADAPTIVE.n_tiles) for start, end in parts]
    values = values or critical_values(tuple(end / n for end in ends))
    n_calls = np.cumsum([len(part) for part in sizes]).tolist()
    rows = []
    for _ in range(n_latents):
        judged, calls = world.test_in_turn(rng, functools.reduce(operator.iadd, sizes, []))
        looks = [_verdicts(world.part(judged, c), calls[c]) for c in (calls < m for m in n_calls)]
        found = [figures_of(look, z) for look, z in zip(looks, values, strict=True)]
        sides = [sure_side(one) for one in found]
        end = next((k for k, side in enumerate(sides) if side), len(sides) - 1)
        fixed = sure_side(figures_of(looks[-1]))
        rows.append(
            (
                all(_holds(f.auroc_low, world.target, f.auroc_high) for f in found),
                all(_holds(f.auroc_hard_low, world.target, f.auroc_hard_high) for f in found),
                all(_holds(f.rho_low, world.rho, f.rho_high) for f in found),
                _holds(found[end].auroc_low, world.target, found[end].auroc_high),
                found[end].auroc - world.target,
                n_calls[end] / n_calls[-1],
                sides[end] == "above",
                sides[end] == fixed,
                {sides[end], fixed} == {"above", "below"},
                sides[end] == sure_side(figures_of(looks[2])),
            )
        )
    return Adaptive(*np.mean(rows, 0).tolist())


def _holds(low: float, truth: float, high: float) -> bool:
    return low <= truth + 1e-9 and high >= truth - 1e-9


def _verdicts(judged: Judged, calls: NDArray[np.int64]) -> list[Verdict]:
    return [
        Verdict(str(i), i, kind == 0, act, -1, KINDS[kind], "", score, call, weight)
        for i, (grade, act, weight, kind, call) in enumerate(
            zip(*(part.tolist() for part in (*judged, calls)), strict=True)
        )
        for score in [None if math.isnan(grade) else grade]
    ]


def _cover(found: list[tuple[float, float, float]], truth: float) -> Cover:
    value, low, high = np.array(found).T
    held = (low <= truth + 1e-9) & (high >= truth - 1e-9)
    return Cover(float(value.mean() - truth), float(held.mean()), float((high - low).mean()))


def _print_adaptive(n_latents: int, base_rate: float, seed: int) -> None:
    print(f"| AUROC | lost | offset | {' | '.join(Adaptive._fields)} |")
    print("|" + "---|" * (3 + len(Adaptive._fields)))
    for lost, offset in FAULTS:
        found = []
        for area in AREAS:
            world = World(area, base_rate, offset, lost)
            found.append(measure_adaptive(world, n_latents, seed))
            figures = " | ".join(f"{value:.3f}" for value in found[-1])
            print(f"| {area} | {lost} | {offset} | {figures} |", flush=True)
        figures = " | ".join(f"{value:.3f}" for value in np.mean(found, 0))
        print(f"| mean | {lost} | {offset} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latents", type=int, default=500)
    parser.add_argument("--base-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adaptive", action="store_true")
    given = parser.parse_args()
    if given.adaptive:
        _print_adaptive(given.latents, given.base_rate, given.seed)
        return
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
