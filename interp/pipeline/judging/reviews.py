"""A run's verdicts and scores -> what people said of its labels, and whether the judge agrees."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from interp.records.support import accepts_label, find_support
from interp.run.run import Run
from interp.run.verdicts import WORDS, is_fresh, newest_reviews, read_reviews
from interp.score.agreement import people_and_judge


@dataclass(frozen=True)
class ReviewSummary:
    """Verdicts on the labels that the latents have now."""

    n_labels: int
    """Latents with a label."""
    n_reviewed: int
    counts: dict[str, int]
    """By verdict."""
    n_better: int
    """Labels that a person wrote."""
    n_blind: int
    """Verdicts that were given after a guess."""
    n_stale: int
    """Verdicts on labels that are gone: they count for nothing."""
    agreement: dict[str, float] = field(default_factory=dict)
    """Of people (right or partly, or wrong) and the judge: n, agreed, kappa and its interval; {}
    without a latent that has both."""

    def agreement_line(self) -> str:
        """How far people and judge agree; "" where no latent has both."""
        if not self.agreement:
            return ""
        n, agreed, kappa, low, high = (
            self.agreement[name] for name in ("n", "agreed", "kappa", "kappa_low", "kappa_high")
        )
        if math.isnan(kappa):
            told = "no kappa where one of them says the same of all"
        else:
            between = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
            told = f"Cohen's kappa {kappa:.2f}{between}"
        return f"people and judge agree on {agreed:.0%} of {n:.0f} labels: {told}"

    def flat(self) -> dict[str, float | int]:
        """Figures for `--json`."""
        return {
            "n_labels": self.n_labels,
            "n_reviewed": self.n_reviewed,
            **self.counts,
            "n_better": self.n_better,
            "n_blind": self.n_blind,
            "n_stale": self.n_stale,
            **{f"agreement/{name}": value for name, value in self.agreement.items()},
        }


def summarise_reviews(run: Run) -> ReviewSummary:
    """Of the run's own labels by its newest judge; a person's `unclear` is no word on a label."""
    results = run.results
    results.forget_outdated()
    said = results.newest_explanations()
    newest = newest_reviews(read_reviews(run.path))
    fresh = {n: one for n, one in newest.items() if is_fresh(one, said.get(n))}
    counts = Counter(review.verdict for review in fresh.values())
    supports = find_support(said, (line.score for line in results.score_lines))
    judge = {}
    for latent in fresh:
        score = results.score(latent)
        if score is not None and score.failure is None:
            judge[latent] = accepts_label(score, supports.get(latent))
    people = {n: one.verdict != "wrong" for n, one in fresh.items() if one.verdict != "unclear"}
    return ReviewSummary(
        n_labels=sum(e.label is not None for e in said.values()),
        n_reviewed=len(fresh),
        counts={verdict: counts[verdict] for verdict in WORDS},
        n_better=sum(bool(one.better) for one in fresh.values()),
        n_blind=sum(bool(one.guess) for one in fresh.values()),
        n_stale=len(newest) - len(fresh),
        agreement=people_and_judge(people, judge),
    )
