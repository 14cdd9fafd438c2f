"""A run's results -> of how many other latents each label fits the images less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from interp.records.tasks import MATCH, SPECIFICITY, TaskScore, share_below
from interp.records.wording import wording
from interp.run.results import Results

N_LEAST = 5
"""With fewer other latents there is no figure."""


class Specificity(NamedTuple):
    """How specific a label is."""

    share: float
    """Of other latents whose images the label fits less than its own; an equal one counts 1/2."""
    n: int
    """Other latents that were looked at."""

    def in_words(self) -> str:
        """For people."""
        return (
            f"The label fits its own images better than those of {self.share:.0%} of {self.n} "
            "other latents (a label that says nothing: 50%)."
        )


def specificities(results: Results) -> dict[int, Specificity]:
    """By latent, of the label that it has now: as a free judge measured it, or else from questions
    of `match` in which the label was offered for another latent's images."""
    tasks = {latent: results.tasks_of(latent) for latent in results.newest_explanations()}
    asked = [found[MATCH] for found in tasks.values() if MATCH in found]
    found = _of_matches([task for task in asked if task.failure is None])
    for latent, of_latent in tasks.items():
        if SPECIFICITY in of_latent:
            found[latent] = Specificity(of_latent[SPECIFICITY].value, of_latent[SPECIFICITY].n)
    return dict(sorted(found.items()))


def mean_specificity(found: Mapping[int, Specificity]) -> float:
    """Over the labels; there must be one."""
    return fmean(one.share for one in found.values())


def summary_line(found: Mapping[int, Specificity]) -> str:
    """For people; there must be a label."""
    return (
        f"specificity of {len(found)} labels: {mean_specificity(found):.3f} on average, the share "
        "of other latents whose images a label fits less than its own"
    )


def _of_matches(tasks: Sequence[TaskScore]) -> dict[int, Specificity]:
    """`tasks`: of `match`, of the labels that latents have now, at most one a latent."""
    offered: dict[tuple[object, str], dict[int, list[float]]] = {}
    for task in tasks:
        for label, answer in _answers(task, right=False):
            by_latent = offered.setdefault((task.by, wording(label)), {})
            by_latent.setdefault(task.latent, []).append(answer)
    found = {}
    for task in tasks:
        own = [answer for _, answer in _answers(task, right=True)]
        others: Mapping[int, list[float]] = offered.get((task.by, wording(task.label)), {})
        means = [fmean(given) for given in others.values()]
        if own and len(means) >= N_LEAST:
            found[task.latent] = Specificity(share_below(fmean(own), means), len(means))
    return found


def _answers(task: TaskScore, *, right: bool) -> Iterable[tuple[str, float]]:
    """Labels that were offered, the latent's own or the others, with what they got."""
    for trial in task.trials:
        for label, truth, answer in zip(trial.shown, trial.truth, trial.answer, strict=True):
            if bool(truth) == right and answer is not None:
                yield label, answer
