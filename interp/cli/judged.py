"""What judging tasks and checks of the judge have found, in words and as figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from interp.cli.said import flatten, say_refusals, say_scored
from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.settings import JudgeSettings, Work
from interp.records.circular import is_circular
from interp.records.family import family_of, is_one_family
from interp.records.tasks import CANARY, CHECKS, DETECT, FUZZ, INTRUDER, MATCH, SIMULATE
from interp.records.wording import BY_PERSON
from interp.run.latents import choose_latents
from sae.cli import console
from sae.core.errors import UserError, quote
from sae.core.files import did_you_mean

if TYPE_CHECKING:
    from interp.pipeline.judging.plan import Judging
    from interp.run.run import Run
    from interp.score.tasks import TaskSummary

ONLY_EDITED = "edited"
"""What `interp score --only` takes: labels that people wrote."""
Figures = dict[str, float | int | str]

_MEANS = {
    SIMULATE: "rank correlation of predicted and true activation",
    INTRUDER: "silent image found among active ones",
    FUZZ: "right region above the moved one",
    MATCH: "right label chosen",
}


def run_tasks(plan: Judging, counts: list[tuple[int, int]]) -> Figures:
    """Run all stages but `detect`, say what they found, and give it as flat figures.

    `counts` gets how many answers are missing, of how many, for each stage.
    """
    return say_tasks(plan, (stage.run() for stage in (*plan.checks, *plan.tasks)), counts)


def say_tasks(
    plan: Judging, summaries: Iterable[TaskSummary], counts: list[tuple[int, int]]
) -> Figures:
    """The same of checks and tasks that were run by whoever gives their summaries."""
    figures: Figures = {}
    early = plan.canaries.stages if plan.canaries else []
    of_early = (stage.summary(()) for stage in early)  # these were run with the labels
    for summary in chain(of_early, summaries):
        counts.append((summary.n_missing, summary.n_answers))
        figures[f"{summary.kind}/usd"] = summary.usd
        if summary.kind not in CHECKS:
            _say_task(summary)
            figures |= _flat(summary)
    if plan.detect is not None:
        figures |= _check(plan)
    return figures


def require_only(only: str, judging: JudgingSettings, control: str) -> None:
    """Raises `UserError` where `--only` is not known, or stands with what it does not do."""
    if only != ONLY_EDITED:
        near = did_you_mean(only, [ONLY_EDITED])
        raise UserError(f"--only {only!r} is not known; it is {ONLY_EDITED}{near}")
    if control or judging.kind != DETECT:
        what = "--control" if control else "--kind"
        raise UserError(f"--only {ONLY_EDITED} has no {what}; leave one of them out")


def score_edited(
    run: Run,
    settings: JudgeSettings,
    work: Work,
    nulls: str,
    json: Path | None,
    exit_code: Callable[[int, int, Work], int],
) -> int:
    """Score the labels that people wrote, beside the run's own; `exit_code` of missing answers."""
    from interp.cli.preview import preview
    from interp.pipeline.judging.edited import EditedStage
    from interp.report.labels import write_labels

    chosen = None if work.latents is None else choose_latents(run.evidence, work.latents)
    stage = EditedStage(run, settings, chosen, work, nulls)
    if work.sends_nothing:
        return preview(run, [stage], work, json)
    summary = stage.run()
    circular = is_circular(summary.scorer, run.info.clip)
    say_scored(summary, circular)
    say_refusals(stage)
    console.say(f"  {BY_PERSON}")
    console.write_figures(json, {**flatten(dataclasses.asdict(summary)), "circular": circular})
    written = {"labels": write_labels(run), "scores": stage.file}
    console.finish(written, [f"interp cards --run {quote(run.path)}"])
    return exit_code(summary.n_missing, summary.n_images, work)


def _say_task(summary: TaskSummary) -> None:
    for kind, n in sorted(summary.failures.items()):
        console.say(f"  {n} failed: {kind}")
    for reason in summary.reasons:
        if reason.words:
            console.say(f"    {reason.n} x {reason.words}")
            console.say(f"      {reason.remedy}")
    if not summary.n_scored:
        console.say(f"{summary.kind}: no latent could be judged by {summary.scorer}")
        return
    between = "" if math.isnan(summary.low) else f" [{summary.low:.3f}, {summary.high:.3f}]"
    console.say(
        f"{summary.kind} by {summary.scorer} on {summary.n_scored} latents: "
        f"{_MEANS[summary.kind]} {summary.mean:.3f}{between}, chance {summary.chance:.3f}"
    )
    shown = {k: v for k, v in summary.more.items() if not k.endswith(("_low", "_high", "chance"))}
    if shown:
        console.say("  " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))
    if summary.n_missing:
        console.say(f"  {summary.n_missing} of {summary.n_answers} answers missing")
    if summary.usd > 0:
        console.say(f"  cost of these answers: ${summary.usd:.4f}")


def _flat(summary: TaskSummary) -> Figures:
    kept = ("n_scored", "n_failed", "n_answers", "n_missing", "mean", "low", "high", "chance")
    figures = {name: getattr(summary, name) for name in kept}
    return {f"{summary.kind}/{name}": value for name, value in (figures | summary.more).items()}


def _check(plan: Judging) -> Figures:
    """What the checks say of the judge of `detect`."""
    found = plan.check()
    for kind, figures in found.agreement.items():
        console.say(f"  {_told(kind, figures)}")
    for warning in found.warnings:
        console.complain(warning)
    same = sorted({e for e in found.explainers if is_one_family(e, found.judge)})
    if same:
        console.say(
            f"  explainer {same[0]} and judge {found.judge} are of one family "
            f"({family_of(found.judge)}): a judge favours its own kind's words; "
            "another --model, or --second-judge, tells"
        )
    flat = {
        f"{kind}/{k}": v for kind, figures in found.agreement.items() for k, v in figures.items()
    }
    return {**flat, **found.habits, "one_family": bool(same), "n_warnings": len(found.warnings)}


def _told(kind: str, figures: Mapping[str, float]) -> str:
    if kind == CANARY:
        return _told_canaries(figures)
    again = {
        "retest": "asked again in the reverse order",
        "alone": "asked alone",
        "second": "asked of the second judge",
    }[kind]
    parts = [
        f"correlation {_bounded(figures, 'correlation', 2)}",
        f"mean difference {_bounded(figures, 'difference', 1)} points",
    ]
    if "kappa" in figures:
        parts.insert(0, f"Cohen's kappa {_bounded(figures, 'kappa', 2)}")
    if "leak" in figures:
        parts.append(f"a fitting neighbour adds {_bounded(figures, 'leak', 2)} of 100 points")
    if "foil_shift" in figures:
        shift = _bounded(figures, "foil_shift", 1)
        parts.append(f"with foils in the question a grade is {shift} points higher")
    return f"{figures['n']:,.0f} images {again}: {', '.join(parts)}"


def _told_canaries(figures: Mapping[str, float]) -> str:
    """All of them, and those that were asked at several moments, as far as there are any yet."""
    parts = []
    if "n" in figures:
        low, high = figures["passed_low"], figures["passed_high"]
        parts.append(
            f"{figures['n']:,.0f} canaries (a black triangle and a blank tile in a question): "
            f"{figures['passed']:.1%} passed [{low:.1%}, {high:.1%}]"
        )
    if "drift" in figures:
        moments = {"start": "at the start", "half": "half way", "end": "at the end"}
        each = (
            f"{figures[f'{name}_passed']:.0%} passed {words} (error {figures[f'{name}_error']:.1f})"
            for name, words in moments.items()
            if f"{name}_passed" in figures
        )
        parts.append(f"{figures['repeated']:.0f} canaries asked again: {', '.join(each)}")
    return "; ".join(parts)


def _bounded(figures: Mapping[str, float], name: str, digits: int) -> str:
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    between = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{figures[name]:.{digits}f}{between}"
