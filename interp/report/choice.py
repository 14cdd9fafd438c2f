"""A run -> which latents, and which of many items, are shown where there is room for some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.run.run import Run


def choose_telling(run: Run, n: int = 12) -> list[int]:
    """Up to `n` latents that show a run as it is, from the best score to the worst.

    Half of them lean to the first domain (or "sketch"), half away from it, as far as there are
    any. Without scores the labelled latents are taken, without labels the live ones.
    """
    reader, results = run.evidence, run.results
    live = reader.live()
    ranked = by_score(run)
    ranked = ranked or [i for i in live if results.label(i) is not None] or live
    share = reader.latents["sketch_share"].to_numpy()
    towards = [i for i in ranked if share[i] >= 1 / len(reader.store.domains)]
    away = [i for i in ranked if i not in set(towards)]
    n_away = min(len(away), max(n // 2, n - len(towards)))
    chosen = spread(towards, n - n_away) + spread(away, n_away)
    return sorted(chosen, key=ranked.index)


def by_score(run: Run) -> list[int]:
    """The live latents that have a score, the best first."""
    found = {latent: run.results.score(latent) for latent in run.evidence.live()}
    areas = {n: s.auroc for n, s in found.items() if s and not math.isnan(s.auroc)}
    return sorted(areas, key=lambda latent: (-areas[latent], latent))


def spread(items: Sequence[Any], n: int) -> list[Any]:
    """`n` of the items at even distances, the first and the last among them."""
    if len(items) <= n:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, n).round().astype(int)]
