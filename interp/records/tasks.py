"""What a judge answered in one judging task on one latent, beside the truth, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from interp.records.figure import Figure
from interp.records.nulls import BESIDE
from interp.records.types import AnsweredBy

DETECT = "detect"
SIMULATE, INTRUDER, FUZZ, MATCH = "simulate", "intruder", "fuzz", "match"
TASKS = (SIMULATE, INTRUDER, FUZZ, MATCH)
"""Judging tasks beside `detect`, whose results are in scores.jsonl."""
SPECIFICITY = "specificity"
"""Not asked: it follows from grades that there are."""
RETEST, ALONE, CANARY, SECOND_JUDGE = "retest", "alone", "canary", "second"
CANARY_START, CANARY_HALF = "canary-start", "canary-half"
"""Some of the canaries, asked before the labels are tested too, and half way."""
CHECKS = (RETEST, ALONE, CANARY, CANARY_START, CANARY_HALF, SECOND_JUDGE)
"""What checks the judge of `detect`."""
SCORING = ("score", f"score{BESIDE}", *(f"score-{name}" for name in (*TASKS, *CHECKS)))
"""Under which the answers of one `interp score` are filed: `--max-cost` caps all together."""
MORE: dict[str, tuple[str, ...]] = {
    SIMULATE: tuple(
        name + end
        for name in ("pearson", "spearman_active", "pearson_active")
        for end in ("", "_low", "_high")
    ),
    INTRUDER: (),
    FUZZ: ("auroc",),
    MATCH: ("chance", "pairs"),
}
"""Figures of a task beside its main one, as labels.csv has them."""


@dataclass(frozen=True)
class Trial:
    """One question: something stands under each letter, and each letter gets a number."""

    shown: tuple[str, ...]
    """By letter: the image_id; of `match` the label that was offered."""
    truth: tuple[Figure, ...]
    """By letter: the activation (`simulate`), or 1 for what is right and 0 for what is not."""
    answer: tuple[Figure | None, ...]
    """By letter: 0 to 10 (`simulate`) or 0 to 100; None where no usable answer came."""
    images: tuple[str, ...] = ()
    """Of `match`: the images that the labels were held against."""


@dataclass(frozen=True)
class TaskScore:
    """The result of one judging task other than `detect` on one latent: a line of tasks.jsonl."""

    latent: int
    kind: str
    """`simulate`, `intruder`, `fuzz`, `match`, `specificity`, or what checks the judge: `retest`,
    `alone`, `canary` and, earlier, `canary-start` and `canary-half`, `second`."""
    label: str
    """That was judged; "" where a task needs none."""
    explainer: str
    model: str
    """The judge."""
    prompt: str
    server: str
    images: str
    """`digest_of` the ids of all images that were to be shown."""
    trials: tuple[Trial, ...]
    value: Figure
    """The task's main figure; NaN without one, as of the checks, which count over a whole run."""
    low: Figure
    high: Figure
    """Bounds of its 95% interval."""
    chance: Figure
    """What a judge who sees nothing gets."""
    n: int
    """Images or questions that the figure is of."""
    n_missing: int
    """Letters without a usable answer."""
    failure: str | None
    calls: tuple[str, ...]
    usd: Figure
    more: dict[str, Figure] = field(default_factory=dict)
    """Further figures, by name."""
    reason: str = ""

    @property
    def by(self) -> AnsweredBy:
        """Who answered, and how asked."""
        return AnsweredBy(self.model, self.prompt, self.server)


class Measured(NamedTuple):
    """A task's figures over the answers of one latent, as in `TaskScore`."""

    value: float
    low: float
    high: float
    chance: float
    n: int
    more: dict[str, float]


def share_below(own: float, others: Sequence[float]) -> float:
    """Of `others`, at least one, the share below `own`; an equal one counts 1/2."""
    below = sum((other < own) + (other == own) / 2 for other in others)
    return below / len(others)
