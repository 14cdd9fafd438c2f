"""Results of judging tasks on a latent -> what they say, in a sentence each."""

from __future__ import annotations

import math
from collections.abc import Mapping

from interp.records.tasks import FUZZ, INTRUDER, MATCH, SIMULATE, TASKS, TaskScore
from interp.report.nulls.baseline import against_linear
from interp.report.nulls.specificity import specificities
from interp.run.results import Results

_SENTENCES = {
    INTRUDER: "Without any label, the one silent image among active ones was found in {value}",
    FUZZ: (
        "The label fits the place where the latent answers better than another place of the same "
        "image in {value}"
    ),
    MATCH: "Of {offered} labels this one was chosen for the latent's images in {value}",
}
_UNITS = {INTRUDER: "questions", FUZZ: "images", MATCH: "questions"}


def task_words(tasks: Mapping[str, TaskScore]) -> list[str]:
    """One sentence for each task that was asked, in a fixed order."""
    return [_sentence(tasks[kind]) for kind in TASKS if kind in tasks]


def test_words(results: Results) -> dict[int, list[str]]:
    """By latent, a sentence for all that tests its label beside the score."""
    specific, baselines = specificities(results), against_linear(results)
    judged = {task.latent for task in results.tasks}
    return {
        latent: [
            *task_words(results.tasks_of(latent)),
            *(found[latent].in_words() for found in (specific, baselines) if latent in found),
        ]
        for latent in sorted({*judged, *specific, *baselines})
    }


def _sentence(task: TaskScore) -> str:
    if task.failure is not None or math.isnan(task.value):
        why = (task.failure or "the answers do not differ").replace("_", " ")
        return f"The task {task.kind} gave no figure: {why}."
    if task.kind == SIMULATE:
        active = task.more.get("spearman_active", math.nan)
        alone = "" if math.isnan(active) else f"; among the active images alone it is {active:.2f}"
        return (
            "Activations predicted from the label follow the true ones with a rank correlation of "
            f"{task.value:.2f} ({task.low:.2f} to {task.high:.2f} at 95%){alone}."
        )
    offered = len(task.trials[0].shown) if task.trials else 0
    said = _SENTENCES[task.kind].format(value=f"{task.value:.0%}", offered=offered)
    return (
        f"{said} of {task.n} {_UNITS[task.kind]} ({task.low:.0%} to {task.high:.0%} at 95%; "
        f"guessing gives {task.chance:.0%})."
    )
