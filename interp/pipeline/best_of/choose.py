"""Several labels of one latent, each scored on the side select -> the one that stands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interp.llm.types import is_transient
from interp.records.types import AnsweredBy, Compared, Explanation, Score
from interp.records.wording import ADDRESSES_JUDGE, addresses_judge, cut_description, cut_label

LEAD = 0.15
"""AUROC by which another of the local namer's names must lead its first one: that it ranks first,
over all its images, is evidence too. Chosen on the hard world of seed 0, checked on that of seed
1 (`benchmarks/best_of.py`)."""


@dataclass(frozen=True)
class Choices:
    """What the choice among labels has come to, over latents."""

    n_compared: int
    """Latents with at least two labels that have an AUROC."""
    n_other: int
    """Those of them whose label is not the first."""
    auroc_first: float
    """Mean AUROC of the first labels of these, on the side select."""
    auroc_chosen: float
    """Of the chosen ones: the largest of several as a rule, so higher than on other images."""


def candidates_of(explanation: Explanation, n: int) -> list[Explanation]:
    """The local namer's `n` best names, each as a label.

    The first has the namer's confidence, which is of it alone. Where it found two names they
    stand: each is right for its group, and neither for the latent.
    """
    if explanation.label is None or explanation.second_label is not None:
        return [explanation]
    return [explanation, *(_renamed(explanation, name) for name in explanation.candidates[1:n])]


def labels_to_compare(answers: Sequence[Explanation]) -> list[Explanation]:
    """The first answer with each label; none where all give the same one."""
    different = {answer.label: answer for answer in reversed(answers) if answer.label is not None}
    return [*reversed(different.values())] if len(different) > 1 else []


def pick(compared: Sequence[Compared], lead: float = 0.0) -> int:
    """The place of the highest AUROC; at equal ones of the larger gap, then of the first.

    With `lead` the first stands unless the highest is more than so much above it.
    """
    best = max(range(len(compared)), key=lambda at: (*_rank(compared[at]), -at))
    return best if _rank(compared[best])[0] - _rank(compared[0])[0] > lead or not lead else 0


def choose(
    answers: Sequence[Explanation],
    grades: Mapping[str, Score],
    by: AnsweredBy,
    lead: float = 0.0,
) -> Explanation:
    """The answer whose label does best on the side select, as `pick` says.

    `grades`: each of `labels_to_compare` -> its score on the side select, with verdicts. `by`: who
    chose. Answers without a label are passed over. No label while an answer or a score is missing
    that waiting would bring, or when no answer has one.
    """
    labelled = [answer for answer in answers if answer.label is not None]
    is_choice = bool(labels_to_compare(answers))
    scores = [grades[answer.label] for answer in labelled if answer.label and is_choice]
    asked: list[Explanation | Score] = [*answers, *scores]
    waited_for = [one for one in asked if is_transient(one.failure or "")]
    if waited_for or not labelled:
        blamed = (waited_for or asked)[0]
        failure, shown = blamed.failure or "", answers[0].codes
        failed = Explanation.failed(answers[0].latent, by, failure, shown, reason=blamed.reason)
        return _with_costs(failed, answers, scores)
    if not is_choice:
        return _with_costs(replace(labelled[0], prompt=by.prompt), answers, scores)
    compared = [
        Compared(score.label, score.auroc, gap_of(score)) if score.failure is None else _lost(score)
        for score in scores
    ]
    best = pick(compared, lead)
    chosen = labelled[best]
    said = _tell(compared, best, len(answers) - len(labelled), lead)
    parts = [said, chosen.provenance] if chosen.provenance else [said]
    images = {v.image_id: None for score in scores for v in score.verdicts}
    made = replace(
        chosen,
        prompt=by.prompt,
        provenance=cut_description("; ".join(parts))[0],
        chosen_among=tuple(compared),
        chosen_on=tuple(images),
    )
    return _with_costs(made, answers, scores)


def gap_of(score: Score) -> float:
    """Mean grade of the active images above that of the silent ones; NaN without both."""
    grades: dict[bool, list[float]] = {True: [], False: []}
    for verdict in score.verdicts:
        if verdict.score is not None:
            grades[verdict.truth].append(verdict.score)
    if not (grades[True] and grades[False]):
        return math.nan
    return float(np.mean(grades[True]) - np.mean(grades[False]))


def count_choices(chosen: Iterable[Explanation]) -> Choices:
    """Of these explanations, those that were chosen among others."""
    pairs = []
    for explanation in chosen:
        known = [one for one in explanation.chosen_among if not math.isnan(one.auroc)]
        if len(known) > 1 and not math.isnan(explanation.chosen_among[0].auroc):
            first = explanation.chosen_among[0]
            own = next(one for one in known if one.label == explanation.label)
            pairs.append((first.auroc, own.auroc, own.label != first.label))
    mean = [
        math.fsum(pair[k] for pair in pairs) / len(pairs) if pairs else math.nan for k in (0, 1)
    ]
    return Choices(len(pairs), sum(pair[2] for pair in pairs), *mean)


def _renamed(explanation: Explanation, name: str) -> Explanation:
    label, cut = cut_label(name)
    speaks = (ADDRESSES_JUDGE,) if addresses_judge(name) else ()
    return replace(explanation, label=label, lint=(*speaks, *cut), confidence=None)


def _lost(score: Score) -> Compared:
    return Compared(score.label, math.nan, math.nan)


def _rank(one: Compared) -> tuple[float, float]:
    return (-1.0, 0.0) if math.isnan(one.auroc) else (one.auroc, one.gap)


def _tell(compared: Sequence[Compared], best: int, n_unlabelled: int, lead: float) -> str:
    """In words; the chosen one stands first."""
    n = len(compared) + n_unlabelled
    if all(math.isnan(one.auroc) for one in compared):
        return f"first of {n}: too few images or answers on the select side to compare them by"
    others = [one for at, one in enumerate(compared) if at != best]
    ranked = [compared[best], *sorted(others, key=_rank, reverse=True)]
    areas = ["none" if math.isnan(one.auroc) else _short(one.auroc) for one in ranked]
    lost = f" ({n_unlabelled} without a usable answer)" if n_unlabelled else ""
    led = _rank(compared[best])[0] < max(_rank(one)[0] for one in compared)
    how = f"first of {n}, which none leads by {_short(lead)}," if led else f"best of {n}"
    return f"{how} by AUROC on the select side: {', '.join(areas)}{lost}"


def _short(area: float) -> str:
    return f"{area:.2f}".removeprefix("0")


def _with_costs(
    made: Explanation, answers: Sequence[Explanation], scores: Sequence[Score]
) -> Explanation:
    """With what all of it has cost. A label that was found twice was scored once."""
    paid: list[Explanation | Score] = [*answers, *{id(one): one for one in scores}.values()]
    calls = dict.fromkeys(key for one in paid for key in one.calls)
    return replace(made, calls=tuple(calls), usd=math.fsum(one.usd for one in paid))
