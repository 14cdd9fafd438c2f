"""Scores of labels across two domains -> the 2x2 of each latent, its class, and the run's summary.

A label is found on images of one domain and tested on held-out images of either; both labels are
tested on the same images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.records.transfer import CLASSES, HOLDS_ABOVE, Cell, Transfer, TransferClass, Why
from interp.records.types import BOUND_SHARE, LatentStats, Score, Verdict
from interp.score.metrics import Z95
from interp.score.sampling import SampleConfig
from sae.core.shares import Interval, wilson_interval

CELL_SAMPLE = SampleConfig(n_positive=24, n_negative=24, n_tiles=12)
"""The images of one cell: as many questions as for a score of 20 + 20 in grids of 10."""
SURE_SHARE = 0.75
"""Lower bound that the share of a domain must have, beside `BOUND_SHARE`, to bind a latent to it:
twelve active images, all of one domain, are enough."""
N_BOOTSTRAP = 2000

Holds = Literal["yes", "no", "open"]
Scores = Mapping[tuple[str, str], Score]
"""(explained on, scored on) -> the score of that label on those images."""


class Domains(NamedTuple):
    """The two domains, and how many images the store has of each."""

    a: str
    b: str
    n_a: int
    n_b: int


def bound_by_rate(stats: LatentStats, domains: Domains) -> str:
    """The domain in which nearly all of the latent's rates lie, beyond chance; "" for neither."""
    rates = stats.domain_rate[domains.a], stats.domain_rate[domains.b]
    n_active = round(rates[0] * domains.n_a), round(rates[1] * domains.n_b)
    share = share_of(stats, domains)
    counted = wilson_interval(n_active[0], sum(n_active))
    low, high = (_to_rates(bound, domains) for bound in counted)
    if share >= BOUND_SHARE and low >= SURE_SHARE:
        return domains.a
    return domains.b if share <= 1 - BOUND_SHARE and high <= 1 - SURE_SHARE else ""


def share_of(stats: LatentStats, domains: Domains) -> float:
    """Rate in the first domain over the sum of both; NaN when the latent is active in neither."""
    a, b = stats.domain_rate[domains.a], stats.domain_rate[domains.b]
    return a / (a + b) if a + b else math.nan


def classify(
    stats: LatentStats, domains: Domains, labels: Mapping[str, str | None], scores: Scores
) -> Transfer:
    """The 2x2 of one latent. `labels`: by the domain they were found in, None for a failure.

    What is not in `labels` or `scores` was not asked (yet), or there were too few images.
    """
    a, b = domains.a, domains.b
    kind, why, only = _classify(bound_by_rate(stats, domains), (a, b), labels, scores)
    return Transfer(
        latent=stats.latent,
        domain_a=a,
        domain_b=b,
        kind=kind,
        why=why,
        only=only,
        label_a=labels.get(a) or "",
        label_b=labels.get(b) or "",
        share_a=share_of(stats, domains),
        cells=tuple(_cell(scores.get(pair)) for pair in product((a, b), repeat=2)),  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class TransferSummary:
    """The 2x2 of a run."""

    domain_a: str
    domain_b: str
    n: int
    """Latents that were looked at."""
    counts: dict[TransferClass, int]
    shares: dict[TransferClass, Interval]
    """95% interval of each class's share."""
    reasons: dict[str, int]
    """Latents by class and why, "domain-bound: rate"; of classes that have a reason."""
    n_full: int
    """Latents with all four scores: `cells` are means over these."""
    cells: tuple[Cell, Cell, Cell, Cell]
    """Mean AUROC with its 95% interval over latents, as in `CELLS`."""
    same_label: float
    """Share of those latents whose two labels read alike."""

    def table(self) -> list[tuple[str, ...]]:
        """The four means, a row for each domain of the labels; the first row is the header."""
        a, b = self.domain_a, self.domain_b
        aa, ab, ba, bb = map(_shown, self.cells)
        header = ("mean held-out AUROC", f"scored on {a}", f"scored on {b}")
        return [header, (f"explained on {a}", aa, ab), (f"explained on {b}", ba, bb)]

    def lines(self) -> list[str]:
        """What the means are over, and the classes, in words."""
        said = ["no latent has all four scores"]
        if self.n_full:
            said = [
                f"means over {self.n_full} latents, 95% intervals over latents; "
                f"the two labels read alike for {self.same_label:.0%}"
            ]
        for kind in CLASSES:
            n, (low, high) = self.counts[kind], self.shares[kind]
            why = [
                f"{n_of} {name.partition(': ')[2]}"
                for name, n_of in self.reasons.items()
                if name.startswith(f"{kind}: ")
            ]
            share = "0"
            if self.n:
                share = f"{n} of {self.n} ({n / self.n:.0%} [{low:.0%}, {high:.0%}])"
            said.append(f"{kind}: {share}" + (f"; by {', '.join(why)}" if why else ""))
        return said

    def flat(self) -> dict[str, float]:
        """Figures for `--json`."""
        cells = zip(("aa", "ab", "ba", "bb"), self.cells, strict=True)
        return {
            **{f"transfer/{kind}": n for kind, n in self.counts.items()},
            **{f"transfer/{name}": n for name, n in self.reasons.items()},
            **{
                f"transfer/{at}_{name}": value
                for at, cell in cells
                for name, value in cell._asdict().items()
            },
            "transfer/n_full": self.n_full,
            "transfer/same_label": self.same_label,
        }


def summarise(found: Sequence[Transfer], a: str, b: str) -> TransferSummary:
    """Of all latents that were looked at between the domains `a` and `b`."""
    kinds = Counter(one.kind for one in found)
    reasons = Counter(f"{one.kind}: {one.why}" for one in found if one.why)
    full = [one for one in found if not any(math.isnan(cell.auroc) for cell in one.cells)]
    areas = np.array([[cell.auroc for cell in one.cells] for one in full]).reshape(-1, 4)
    alike = [_wording(one.label_a) == _wording(one.label_b) for one in full]
    return TransferSummary(
        domain_a=a,
        domain_b=b,
        n=len(found),
        counts={kind: kinds[kind] for kind in CLASSES},
        shares={kind: wilson_interval(kinds[kind], len(found)) for kind in CLASSES},
        reasons=dict(sorted(reasons.items())),
        n_full=len(full),
        cells=_means(areas),
        same_label=sum(alike) / len(full) if full else math.nan,
    )


def _classify(
    bound: str, domains: tuple[str, str], labels: Mapping[str, str | None], scores: Scores
) -> tuple[TransferClass, Why, str]:
    if bound:
        return "domain-bound", "rate", bound
    holds = {
        (on, at): _holds(scores.get((on, at)), scores.get((at, at)))
        for on, at in product(domains, repeat=2)
    }
    why = _unscored(domains, labels, scores)
    if why:
        return "undecided", why, ""
    a, b = domains
    both = [on for on in domains if holds[on, a] == holds[on, b] == "yes"]
    if len(both) == 2:
        return "shape", "", ""
    if both and any(holds[on, at] == "no" for on in domains if on not in both for at in domains):
        return "one way", "", both[0]
    at_home = [on for on in domains if holds[on, on] == "yes"]
    if holds[a, b] == holds[b, a] == "no" and at_home:
        return "domain-bound", "score", at_home[0] if len(at_home) == 1 else ""
    none = all(state == "no" for state in holds.values())
    return "undecided", "no label holds" if none else "intervals", ""


def _unscored(domains: tuple[str, str], labels: Mapping[str, str | None], scores: Scores) -> Why:
    """Why some of the four scores are missing; "" where none is."""
    found = [scores.get((on, at)) for on, at in product(domains, repeat=2)]
    if all(score is not None and score.failure is None for score in found):
        return ""
    asked = all(domain in labels for domain in domains)
    failed = any(labels.get(domain, "") is None for domain in domains)
    waiting = asked and not failed and any(score is None for score in found)
    return "not asked" if not asked or waiting else "too few images"


def _holds(score: Score | None, home: Score | None) -> Holds:
    """Whether a label predicts on these images, and if not, whether that is beyond doubt.

    `home`: the label that was found in their own domain, on the same images. What does not clearly
    hold fails where its interval lies below the bound, or where that other label is clearly better.
    """
    if score is None or score.failure is not None:
        return "open"
    if score.auroc_low > HOLDS_ABOVE:
        return "yes"
    if score.auroc_high < HOLDS_ABOVE:
        return "no"
    if home is None or home is score or home.failure is not None:
        return "open"
    if {v.image_id for v in home.verdicts} != {v.image_id for v in score.verdicts}:
        return "open"
    return "no" if _gain(home, score).low > 0 else "open"


def _gain(better: Score, other: Score) -> Interval:
    """95% interval of the difference of two labels' AUROCs on the same images (DeLong 1988)."""
    wins = _wins(better) - _wins(other)  # (n_pos, n_neg), of the same images
    n_pos, n_neg = wins.shape
    variance = wins.mean(1).var(ddof=1) / n_pos + wins.mean(0).var(ddof=1) / n_neg
    half = Z95 * math.sqrt(variance)
    return Interval(float(wins.mean()) - half, float(wins.mean()) + half)


def _wins(score: Score) -> NDArray[np.float64]:
    """Of each pair of a positive and a negative, in the order of their ids: 1, 0 or, for equal
    grades and missing answers, 1/2."""
    ordered = sorted(score.verdicts, key=lambda verdict: verdict.image_id)
    pos = [_grade(verdict) for verdict in ordered if verdict.truth]
    neg = [_grade(verdict) for verdict in ordered if not verdict.truth]
    higher = np.sign(np.array(pos)[:, None] - np.array(neg)[None, :])
    return np.asarray(np.nan_to_num(higher) / 2 + 0.5)


def _grade(verdict: Verdict) -> float:
    return math.nan if verdict.score is None else verdict.score


def _cell(score: Score | None) -> Cell:
    return Cell() if score is None else Cell(score.auroc, score.auroc_low, score.auroc_high)


def _to_rates(share: float, domains: Domains) -> float:
    """A share of the active images as the share of the rates that it means."""
    a, b = share / domains.n_a, (1 - share) / domains.n_b
    return a / (a + b)


def _shown(cell: Cell) -> str:
    return "–" if math.isnan(cell.auroc) else f"{cell.auroc:.3f} [{cell.low:.3f}, {cell.high:.3f}]"


def _wording(label: str) -> str:
    return " ".join(label.casefold().split())


def _means(areas: NDArray[np.float64]) -> tuple[Cell, Cell, Cell, Cell]:
    """Mean of each column (n_latents, 4), its interval by a bootstrap over latents."""
    if not len(areas):
        return (Cell(), Cell(), Cell(), Cell())
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(areas), size=(N_BOOTSTRAP, len(areas)))
    low, high = np.quantile(areas[drawn].mean(1), [0.025, 0.975], axis=0)  # (4,) each
    columns = zip(areas.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    aa, ab, ba, bb = (Cell(*column) for column in columns)
    return aa, ab, ba, bb
