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
from interp.score.figures import Figures, figures_of, sure_side, will_stay_open
from interp.score.latent import MOST_MISSING
from interp.score.sampling import ADAPTIVE, even_sizes, look_ends
from interp.score.statistics.population import Judged
from interp.score.statistics.sequence import UNLIKELY, chance_of_at_most, critical_values
from tests.support.interp.oracles import World

AREAS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 1.0)
TESTS = ((20, 4), (8, 2))
"""Active images, as many silent ones, and calls."""
FAULTS = ((0.0, 0.0), (0.1, 0.0), (0.25, 0.0), (0.0, 0.5))
"""Share of lost answers, and level of calls in deviations of the grades."""
NO_SCORE = "no score"
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
    """Share whose label is on the same side of chance, on neither, or without a score, in a fixed
    test of all."""
    contrary: float
    """Share that is above chance in one and below it in the other."""
    same_scored: float
    """`same` of those that have a score in both; NaN where there are none."""
    same_20: float
    """Share that is as in a fixed test of 20 + 20."""
    no_score: float
    """Share that ends without a score, for more than a tenth of all images have no answer."""


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
        end, side = _end(looks, found, values, [m / n for m in ends])
        fixed, of_20 = (_outcome(looks[k], len(looks[k]), figures_of(looks[k])) for k in (-1, 2))
        rows.append(
            (
                all(_holds(f.auroc_low, world.target, f.auroc_high) for f in found),
                all(_holds(f.auroc_hard_low, world.target, f.auroc_hard_high) for f in found),
                all(_holds(f.rho_low, world.rho, f.rho_high) for f in found),
                _holds(found[end].auroc_low, world.target, found[end].auroc_high),
                found[end].auroc - world.target,
                n_calls[end] / n_calls[-1],
                side == "above",
                side == fixed,
                {side, fixed} == {"above", "below"},
                math.nan if NO_SCORE in (side, fixed) else side == fixed,
                side == of_20,
                side == NO_SCORE,
            )
        )
    columns = np.array(rows, float).T
    known = (column[~np.isnan(column)] for column in columns)
    return Adaptive(*(float(one.mean()) if one.size else math.nan for one in known))


def _end(
    looks: Sequence[Sequence[Verdict]],
    found: Sequence[Figures],
    values: Sequence[float],
    shares: Sequence[float],
) -> tuple[int, str]:
    """At which look `interp score` ends the test, and with what outcome."""
    for k, (look, figures, z, share) in enumerate(zip(looks, found, values, shares, strict=True)):
        outcome = _outcome(look, len(looks[-1]), figures)
        if outcome == NO_SCORE or share == 1:
            return k, outcome
        is_score = _n_missing(look) <= MOST_MISSING * len(look)
        if is_score and (outcome or will_stay_open(figures, z, share, values[-1])):
            return k, outcome
    raise AssertionError("no look at all images")


def _outcome(look: Sequence[Verdict], n_images: int, figures: Figures) -> str:
    """The side of chance, "" for neither, or that too many of `n_images` have no answer, or next
    to surely will have none."""
    most, n_missing = MOST_MISSING * n_images, _n_missing(look)
    lacks = chance_of_at_most(most, n_missing, len(look), n_images) < UNLIKELY
    return NO_SCORE if lacks else sure_side(figures)


def _n_missing(look: Sequence[Verdict]) -> int:
    return sum(verdict.score is None for verdict in look)


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
