"""Evidence and the images of a test -> how many held-out images each of them stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from interp.records.types import Evidence, Example


def weigh(evidence: Evidence, shown: Sequence[Example]) -> dict[str, float]:
    """Image id -> held-out images that it stands for; empty where that is not known.

    Active images are an even sample: those of a stratum share its active images, and those too weak
    to be shown. A hard image was chosen, not drawn, and stands for itself; the silent ones of a
    domain share what else is silent there. A domain of which no silent image is shown is left out,
    and so are its active images. Not known without `LatentStats.held_out`, and where silent images
    lack and weak ones stand in.
    """
    if not evidence.stats.held_out or any(example.kind == "weak" for example in shown):
        return {}
    silent = Counter(e.domain for e in shown if e.kind == "silent")
    hard = Counter(e.domain for e in shown if e.kind == "hard")
    counted = {one.domain: one for one in evidence.stats.held_out}
    known = {name for name, one in counted.items() if silent[name] or not one.silent}
    n_active = sum(counted[name].active for name in known)
    weights = _of_strata(evidence, [e for e in shown if e.is_positive and e.domain in known])
    weights = {image_id: share * n_active for image_id, share in weights.items()}
    for example in shown:
        name = example.domain
        if name in known and example.kind == "hard":
            weights[example.image_id] = 1.0
        if name in known and example.kind == "silent":
            others = max(counted[name].silent - hard[name], silent[name])
            weights[example.image_id] = others / silent[name]
    return weights


def _of_strata(evidence: Evidence, positives: Sequence[Example]) -> dict[str, float]:
    """Share of the active images that each stands for, by the strata of the even sample.

    A stratum of which none is shown falls to the next stronger one, or else to the next weaker.
    """
    sizes = Counter(e.stratum for e in evidence.of("score", "quantile"))
    top = max(sizes, default=0)
    shown = Counter(_stratum(e, top) for e in positives)
    taken = Counter({s: _size_of(s, sizes, shown) for s in shown})
    total = taken.total()
    if not total:
        return {e.image_id: 1 / len(positives) for e in positives}
    shares = {s: taken[s] / total / shown[s] for s in shown}
    return {e.image_id: shares[_stratum(e, top)] for e in positives}


def _stratum(example: Example, top: int) -> int:
    """Images of the top list are strongest of all."""
    return example.stratum if example.stratum >= 0 else top


def _size_of(stratum: int, sizes: Counter[int], shown: Iterable[int]) -> int:
    """Images of the even sample that fall to a stratum which is shown."""
    there = sorted(shown)

    def falls_to(other: int) -> int:
        return next((s for s in there if s >= other), there[-1])

    return sum(n for other, n in sizes.items() if falls_to(other) == stratum)
