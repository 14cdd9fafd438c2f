"""Explanations, scores and the truth -> a line for each latent, and the figures of each system."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from interp.bench.constructed import Constructed
from interp.bench.kinds import KINDS
from interp.bench.naming import (
    RIGHT,
    WorldTruth,
    auroc_of,
    grade_names,
    has_third,
    is_flagged,
    is_made_of_concepts,
)
from interp.records.types import Explanation, Score

TRAINED = "trained"
"""The kind of a latent of an SAE whose strongest images share one concept; `mixed` of others."""
MIXED = "mixed"
FALSE = ("wrong", "none")


@dataclass(frozen=True)
class Line:
    """One latent as one explainer and one judge see it. bench.csv has a line for each."""

    part: str
    """constructed, or trained: latents of an SAE."""
    explainer: str
    judge: str
    latent: int
    kind: str
    meaning: str
    """Concepts that it is made of, with | between them; of a trained latent the planted concept
    that tells its active images best."""
    domain: str
    label: str
    second_label: str
    verdict: str
    supported: str
    """One of `interp.records.support.STATES`; "" where no null was graded."""
    naming: str
    """See `interp.bench.naming.Naming`."""
    third: bool
    """A label says a concept that is not among `meaning`, and none that is wider."""
    domain_said: bool
    flagged: bool
    """More than one thing, or nothing clear, is said to be there."""
    score: float
    low: float
    high: float
    truth: float
    """AUROC that the label's own truth has on the images of the score."""
    truth_all: float
    """The same over all images of the store."""
    best: float
    """The largest `truth_all` that any concept has."""

    @property
    def regret(self) -> float:
        return self.best - self.truth_all


@dataclass(frozen=True)
class Figures:
    """What one explainer and one judge come to; NaN where there is nothing to count. summary.csv
    has a line for each."""

    part: str
    explainer: str
    judge: str
    n_latents: int
    named: float
    """Share of pure (of trained: of one concept) latents with the planted name or a synonym."""
    named_exact: float
    named_hypernym: float
    named_noisy: float
    named_absorbed: float
    even_flagged: float
    even_both: float
    even_one: float
    even_third: float
    uneven_flagged: float
    uneven_both: float
    uneven_one: float
    domain_said: float
    """Of the latents that answer in one domain alone: those of which it is said."""
    supported: float
    """Of the labels of pure latents that name the concept: those that are believed."""
    false_supported: float
    """Of all labels that are believed: those that say nothing of what the latent is made of."""
    false_noise: float
    """Share with a label that is believed: see `believed`."""
    false_shuffled: float
    false_random: float
    false_third: float
    """Of even pairs: those with a third name in such a label."""
    spearman: float
    """Rank correlation of score and `truth`, over all latents."""
    spearman_all: float
    """Of score and `truth_all`."""
    error: float
    """Mean of |score - truth|."""
    cover: float
    """Share of the intervals that hold `truth`."""
    score: float
    truth: float
    regret: float
    """Mean of `best` - `truth_all` over the latents that have a right name."""
    usd_explain: float
    usd_score: float


def line_of(
    part: str,
    explanation: Explanation,
    judge: str,
    score: Score | None,
    meaning: Constructed,
    truth: WorldTruth,
    active: NDArray[np.bool_],
    supported: str = "",
) -> Line:
    """`score` of that label with its verdicts, None where there is none; `active` (n_images,) is
    where the latent is active."""
    true = truth.where(explanation.label)
    verdicts = score.verdicts if score else ()
    rows = [truth.row_of[verdict.image_id] for verdict in verdicts]
    positive = np.array([verdict.truth for verdict in verdicts], bool)
    return Line(
        part=part,
        explainer=explanation.model,
        judge=judge,
        latent=explanation.latent,
        kind=meaning.kind,
        meaning=" | ".join(meaning.concepts),
        domain=meaning.domain,
        label=explanation.label or "",
        second_label=explanation.second_label or "",
        verdict=explanation.verdict,
        supported=supported,
        naming=grade_names(explanation, meaning),
        third=has_third(explanation, meaning),
        domain_said=bool(meaning.domain) and explanation.domain == meaning.domain,
        flagged=is_flagged(explanation),
        score=score.auroc if score else math.nan,
        low=score.auroc_low if score else math.nan,
        high=score.auroc_high if score else math.nan,
        truth=float(auroc_of(true[rows], positive)),
        truth_all=float(auroc_of(true, active)),
        best=float(np.nanmax(truth.aurocs(active), initial=-math.inf)),
    )


def figures_of(lines: Sequence[Line], usd: tuple[float, float]) -> Figures:
    """The figures of one system; `usd` to explain and to score."""
    kinds: Mapping[str, list[Line]] = {
        kind: [line for line in lines if line.kind == kind] for kind in (*KINDS, TRAINED, MIXED)
    }
    pure = kinds["pure"] + kinds[TRAINED]
    even, uneven = kinds["even"], kinds["uneven"]
    judged = [line for line in lines if not math.isnan(line.score + line.truth)]
    meant = [line for line in lines if is_made_of_concepts(line.kind)]
    scores = [line.score for line in judged]
    return Figures(
        **{name: getattr(lines[0], name) for name in ("part", "explainer", "judge")},
        n_latents=len(lines),
        named=_share(pure, lambda line: line.naming in RIGHT),
        named_exact=_share(pure, lambda line: line.naming == "exact"),
        named_hypernym=_share(pure, lambda line: line.naming == "hypernym"),
        named_noisy=_share(kinds["noisy"], lambda line: line.naming in RIGHT),
        named_absorbed=_share(kinds["absorbed"], lambda line: line.naming in RIGHT),
        even_flagged=_share(even, lambda line: line.flagged),
        even_both=_share(even, lambda line: line.naming == "both"),
        even_one=_share(even, lambda line: line.naming == "one of two"),
        even_third=_share(even, lambda line: line.third),
        uneven_flagged=_share(uneven, lambda line: line.flagged),
        uneven_both=_share(uneven, lambda line: line.naming == "both"),
        uneven_one=_share(uneven, lambda line: line.naming == "one of two"),
        domain_said=_share(kinds["domain"], lambda line: line.domain_said),
        supported=_share([line for line in pure if line.naming in RIGHT], is_believed),
        false_supported=_share(
            [line for line in lines if is_believed(line)], lambda line: line.naming in FALSE
        ),
        false_noise=_share(kinds["noise"], is_believed),
        false_shuffled=_share(kinds["shuffled"], is_believed),
        false_random=_share(kinds["random"], is_believed),
        false_third=_share(even, lambda line: line.third and is_believed(line)),
        spearman=spearman(scores, [line.truth for line in judged]),
        spearman_all=spearman(scores, [line.truth_all for line in judged]),
        error=_mean(abs(line.score - line.truth) for line in judged),
        cover=_share(judged, lambda line: line.low <= line.truth <= line.high),
        score=_mean(scores),
        truth=_mean(line.truth for line in judged),
        regret=_mean(line.regret for line in meant),
        usd_explain=usd[0],
        usd_score=usd[1],
    )


def is_believed(line: Line) -> bool:
    """Whether the label is supported; without nulls, is not "unclear" and scores above chance."""
    if line.supported:
        return line.supported == "supported"
    return bool(line.label) and line.verdict != "unclear" and line.low > 0.5


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; NaN for fewer than three pairs, or where one never differs."""
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def names_of(record: type[Line] | type[Figures]) -> tuple[str, ...]:
    """The columns of a table of such records."""
    return tuple(field.name for field in fields(record))


def _share(lines: Sequence[Line], holds: Callable[[Line], bool]) -> float:
    return _mean(map(holds, lines))


def _mean(values: Iterable[float]) -> float:
    known = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
