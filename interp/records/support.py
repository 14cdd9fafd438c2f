"""Explanations and scores with their nulls -> which labels are supported; the one place of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from interp.records.nulls import Null
from interp.records.types import Explanation, Score

State = Literal["supported", "undecided", "unsupported"]
STATES: tuple[State, ...] = ("supported", "undecided", "unsupported")
ALPHA = 0.05
"""Share of false ones that is accepted among the labels that pass the ranking (BH)."""
ENOUGH = 1000
"""Other labels among which a rank gives a p-value that is fine enough."""
LEAST_OF_KIND = 5
"""Nulls of a kind that stand for those of a latent that has none, unless no kind has so many."""
RANKED = ("shuffled", "word", "generic", "domain")
"""Kinds of foils that a label is ranked among where the judge is paid. A class name is none: it is
chosen for the latent."""


@dataclass(frozen=True)
class Support:
    """Whether a label predicts its latent better than labels that say nothing of it."""

    state: State
    reason: str
    """In words, for people."""
    p: float
    """Share of other labels that do as well on the same images; NaN where none was graded."""
    p_adjusted: float
    """The same by Benjamini and Hochberg over the labels of the run; of an adaptive test times its
    looks before (Bonferroni)."""
    n_others: int
    """Labels that `p` is by."""
    gain: float
    """AUROC less that of the best null; NaN without nulls."""
    gain_low: float
    gain_high: float
    best: str
    """Kind of the best null; "" without nulls."""


def find_support(
    explanations: Mapping[int, Explanation], scores: Iterable[Score], control: str = ""
) -> dict[int, Support]:
    """By latent, of its last score under `control`; none where no null was graded in the run.

    `explanations`: the newest of each latent. A score of another label than the latent has now
    counts for nothing, but for controls, whose labels are of other latents.
    """
    last = {s.latent: s for s in scores if s.control == control}
    kept = [
        score
        for _, score in sorted(last.items())
        if score.latent in explanations
        and (control or explanations[score.latent].label == score.label)
    ]
    pool = [null for score in kept if score.nulls for null in score.nulls.nulls]
    if not pool:
        return {}
    tested = [score for score in kept if score.failure is None]
    ranks = [_rank(score, pool) for score in tested]
    p = [(1 + reached) / (1 + n) if n else math.nan for reached, n in ranks]
    # A rank at the look that ended a test is one of several that it could have ended with.
    adjusted = _adjust([min(1.0, x * max(s.most_looks, 1)) for x, s in zip(p, tested, strict=True)])
    found = {s.latent: _untested(s) for s in kept if s.failure is not None}
    for score, rank, raw, q in zip(tested, ranks, p, adjusted, strict=True):
        verdict = "" if control else explanations[score.latent].verdict
        found[score.latent] = _judge(score, verdict, raw, q, rank, _best(score, pool))
    return dict(sorted(found.items()))


def count_states(found: Iterable[Support]) -> dict[State, int]:
    """How many labels are in each state."""
    states = [one.state for one in found]
    return {state: states.count(state) for state in STATES}


def accepts_label(score: Score, support: Support | None) -> bool:
    """Whether the judge takes a label to hold: it is supported; where no null was graded, the
    interval of its AUROC lies above chance."""
    return support.state == "supported" if support else score.auroc_low > 0.5


def _rank(score: Score, pool: Sequence[Null]) -> tuple[int, int]:
    """How many other labels do as well, of how many: on the same images, or else foils of all."""
    if score.nulls and score.nulls.n_others:
        return score.nulls.n_reached, score.nulls.n_others
    foils = [null.auroc for null in pool if null.kind in RANKED]
    return sum(area >= score.auroc for area in foils), len(foils)


def _adjust(p: Sequence[float]) -> list[float]:
    """Adjusted by Benjamini and Hochberg; NaN stays."""
    from scipy.stats import false_discovery_control

    known = [value for value in p if not math.isnan(value)]
    adjusted = iter(false_discovery_control(known).tolist() if known else [])
    return [value if math.isnan(value) else next(adjusted) for value in p]


def _best(score: Score, pool: Sequence[Null]) -> Null:
    """The best null on the score's own images; where none was graded, the best kind of the pool."""
    own = score.nulls.best if score.nulls else None
    if own is not None:
        return own
    kinds: dict[str, list[float]] = {}
    for null in pool:
        kinds.setdefault(null.kind, []).append(null.auroc)
    enough = {kind: areas for kind, areas in kinds.items() if len(areas) >= LEAST_OF_KIND}
    area, kind = max((fmean(areas), kind) for kind, areas in (enough or kinds).items())
    n = len(kinds[kind])
    error = 1.96 * stdev(kinds[kind]) / math.sqrt(n) if n > 1 else 0.5
    low = score.auroc - area - math.hypot(score.auroc - score.auroc_low, error)
    high = score.auroc - area + math.hypot(score.auroc_high - score.auroc, error)
    return Null(kind, f"{n} of other latents", area, score.auroc - area, low, high)


def _judge(
    score: Score, verdict: str, p: float, adjusted: float, rank: tuple[int, int], best: Null
) -> Support:
    """Unsupported: something speaks against the label. Undecided: too little speaks for it."""
    no_hard, (reached, n) = math.isnan(score.auroc_hard), rank
    as_good = reached / n if n else 0.0
    against = {
        "the explainer itself calls it unclear": verdict == "unclear",
        f"{as_good:.0%} of {n:,} other labels do as well": as_good > ALPHA,
        f"a label that says nothing ({best.kind}: {best.label}) does as well": best.gain_high <= 0,
        "it does not tell look-alikes apart": score.auroc_hard_high <= 0.5,
    }
    open_ = {
        f"the gain over the best null ({best.kind}) may be none": not best.gain_low > 0,
        "its rank among other labels may be chance": not adjusted <= ALPHA,
        "it may not tell look-alikes apart": not (score.auroc_hard_low > 0.5 or no_hard),
    }
    reasons = [words for words, holds in against.items() if holds]
    doubts = [words for words, holds in open_.items() if holds]
    state: State = "unsupported" if reasons else "undecided" if doubts else "supported"
    said = "; ".join(reasons or doubts) or f"better than {n:,} other labels and the best null"
    return Support(state, said, p, adjusted, n, best.gain, best.gain_low, best.gain_high, best.kind)


def _untested(score: Score) -> Support:
    nan = math.nan
    return Support("undecided", f"no score: {score.failure}", nan, nan, 0, nan, nan, nan, "")
