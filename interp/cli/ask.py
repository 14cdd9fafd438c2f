"""The sub-commands that ask models, and those that tell what models there are and what was paid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.judged import require_only, run_tasks, score_edited
from interp.cli.preview import preview, preview_in_all
from interp.cli.said import (
    flatten,
    say_against_linear,
    say_apart,
    say_chosen,
    say_explained,
    say_newest,
    say_refusals,
    say_scored,
    say_shared,
    say_specific,
)
from interp.llm.types import OPENROUTER, is_transient, typed_url
from interp.pipeline.best_of.settings import BestOfSettings, require_apart
from interp.pipeline.judging.settings import JudgingSettings
from interp.pipeline.settings import JudgeSettings, ModelSettings, Work
from interp.records.circular import is_circular
from interp.records.family import LOCAL
from interp.records.types import TOO_FEW
from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.cli.options import spread
from sae.core.errors import FAILURES, OK, UserError, quote

if TYPE_CHECKING:
    from interp.explain.run import ExplainSummary
    from interp.pipeline.judging.plan import Judging
    from interp.run.run import Run
    from interp.score.run import ScoreSummary

RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Name under results/, or a folder; default: the newest run, or the one named last.",
    ),
]
VocabularyOption = Annotated[
    str,
    typer.Option(
        help="Its words: auto, world, hard, general, or a file.",
        rich_help_panel="With --model local",
    ),
]


@spread
def explain(
    settings: ModelSettings,
    choice: BestOfSettings,
    work: Work,
    run: RunOption = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Also latents that fire on more than 10% of the tokens.")
    ] = False,
    vocabulary: VocabularyOption = "auto",
    disambiguate: Annotated[
        bool,
        typer.Option(
            "--disambiguate",
            help="Ask, once, of each latent whose label others have too, what sets it apart.",
        ),
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Ask a model what the images of each latent share.

    A stopped run goes on, and nothing is paid twice. The key is read from OPENROUTER_API_KEY.
    """
    from interp.pipeline.best_of.stages import BestOf
    from interp.pipeline.explain import ExplainStage
    from interp.report.labels import write_labels

    opened = open_run(run)
    chosen = work.choose(opened.evidence, dense)
    settings = dataclasses.replace(settings, vocabulary=vocabulary)
    if disambiguate:
        if choice.best_of > 1:
            raise UserError("--disambiguate makes one label of each latent; leave --best-of out")
        return _tell_apart(opened, settings, chosen, work, json)
    asked = (settings, chosen, work)
    stage = ExplainStage(opened, *asked) if choice.best_of == 1 else BestOf(opened, choice, *asked)
    if isinstance(stage, BestOf):
        if work.sends_nothing:
            estimates = stage.estimates() if work.estimate else []
            return preview_in_all(estimates, stage.write_requests, work, json)
        made = stage.run()
        say_explained(made.explained, settings)
        summary, figures = made.explained, say_chosen(made, opened.info.clip)
    else:
        if work.sends_nothing:
            return preview(opened, [stage], work, json)
        summary, figures = stage.run(), {}
        say_explained(summary, settings)
    say_refusals(stage)
    console.write_figures(json, flatten(summary._asdict()) | figures)
    written = {"labels": write_labels(opened), "answers": opened.explanations}
    n_left = len(set(chosen)) - summary.n_skipped - summary.n_labelled - summary.n_failed
    if n_left:
        console.say(f"{n_left} latents are left; the same command without --limit does them")
    say_shared(opened.results.newest_explanations())
    console.finish(written, [_next(opened, settings, summary)])
    return verdict(summary.n_unusable, summary.n_asked, work)


def _next(run: Run, settings: ModelSettings, summary: ExplainSummary) -> str:
    """The command that follows: scoring, or explaining again where there is no label; or cards,
    where no latent is on enough images, which asking again does not change.
    """
    explained = run.results.newest_explanations().values()
    has_labels = any(e.label for e in explained)
    if explained and all(e.failure == TOO_FEW for e in explained):
        return f"interp cards --run {quote(run.path)}"
    again = "" if all(is_transient(kind) for kind in summary.failures) else " --retry-failed"
    stage_next, more = ("score", "") if has_labels else ("explain", again)
    if settings.is_linear and has_labels:
        settings = dataclasses.replace(settings, model=LOCAL)
    return f"interp {stage_next} {settings.typed} --run {quote(run.path)}{more}"


def _tell_apart(
    run: Run, settings: ModelSettings, latents: Sequence[int], work: Work, json: Path | None
) -> int:
    """One round about labels that several latents share."""
    from interp.pipeline.best_of.disambiguate import DisambiguateStage
    from interp.report.labels import write_labels

    require_apart(settings)
    stage = DisambiguateStage(run, settings, latents, work)
    if work.sends_nothing:
        return preview(run, [stage], work, json)
    told = stage.tell_apart()
    figures = say_apart(told, settings)
    say_refusals(stage)
    console.write_figures(json, figures)
    written = {"labels": write_labels(run), "answers": stage.file}
    console.finish(written, [f"interp score {settings.typed} --run {quote(run.path)}"])
    return verdict(told.summary.n_unusable, told.summary.n_asked, work)


@spread
def score(
    settings: JudgeSettings,
    judging: JudgingSettings,
    work: Work,
    run: RunOption = None,
    control: Annotated[
        str, typer.Option(help="Other labels: shuffled; other SAEs: untrained,random (or one).")
    ] = "",
    control_latents: Annotated[
        int, typer.Option(help="Latents of each SAE that learned nothing.", min=1)
    ] = 64,
    nulls: Annotated[
        str,
        typer.Option(
            help="Labels that say nothing, on the same images: foils (of other latents, for a paid "
            "judge), none, or (the default) what fits the judge.",
            show_default=False,
        ),
    ] = "",
    only: Annotated[
        str, typer.Option(help="edited: the labels that people wrote (interp review).")
    ] = "",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Predict from each label which held-out images activate its latent: AUROC with interval.

    --kind asks other judging tasks, with or without it; docs/scores.md says what each means.
    """
    from interp.cli.controls import go_through_controls, require_none_chosen
    from interp.pipeline.controls import read_controls
    from interp.pipeline.judging.plan import Judging
    from interp.report.labels import write_labels
    from interp.report.nulls.specificity import specificities

    opened = open_run(run)
    if only:
        require_only(only, judging, control)
        return score_edited(opened, settings, work, nulls, json, verdict)
    if names := read_controls(control):
        require_none_chosen(control, judging, work)
        return go_through_controls(opened, names, settings, control_latents, work, nulls, json)
    plan = Judging(opened, settings, judging, control, work, nulls)
    if work.sends_nothing:
        return preview(opened, plan.stages, work, json)
    figures: dict[str, float | int | str] = {}
    counts: list[tuple[int, int]] = []
    if plan.detect is not None:
        summary, told = _detect(opened, plan, control)
        figures |= told
        counts.append((summary.n_missing, summary.n_images))
    figures |= run_tasks(plan, counts)
    figures |= say_specific(specificities(opened.results))
    console.write_figures(json, figures)
    written = {"labels": write_labels(opened)}
    written |= {"scores": opened.scores} if plan.detect else {}
    written |= {"tasks": opened.tasks} if opened.tasks.exists() else {}
    console.finish(written, [f"interp cards --run {quote(opened.path)}"])
    return verdict(sum(n for n, _ in counts), sum(n for _, n in counts), work)


def _detect(
    run: Run, plan: Judging, control: str
) -> tuple[ScoreSummary, dict[str, float | int | str]]:
    """Score, say what came of it, and give it as flat figures."""
    from interp.pipeline.judging.specificity import measure_specificity
    from interp.report.nulls.controls import flat, side_by_side, table

    summary, stage = plan.score(), plan.detect
    assert stage is not None
    circular = is_circular(summary.scorer, run.info.clip)
    say_scored(summary, circular)
    rows = side_by_side(run)
    if len(rows) > 1:
        console.print_table(table(rows))
    figures = {**flatten(dataclasses.asdict(summary)), **flat(rows), "circular": circular}
    if not control:
        figures |= say_newest(run.results)
        figures |= say_against_linear(run.results)
        if stage.is_local:
            measure_specificity(run, stage)
    say_refusals(stage)
    return summary, figures


def open_run(name: str | None) -> Run:
    """The run that is meant; which one is said first where nobody named it."""
    from interp.run.run import Run

    opened = Run.open(name)
    if name is None:
        console.say(f"{'run:':<9} {opened.path}")
    return opened


def models(
    contains: Annotated[
        str, typer.Argument(help="Only ids with this in them.", show_default=False)
    ] = "",
    base_url: Annotated[str, typer.Option(help="Any OpenAI-compatible server.")] = OPENROUTER,
    all_models: Annotated[
        bool, typer.Option("--all", help="Also models that read no images.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Fetch the list again; it is kept for a day.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Models that read images: price, context, structured output, cost of a latent."""
    import os

    from interp.cli.models import figures, print_models
    from interp.llm.cost.model_list import fetch_models, list_models
    from interp.llm.types import KEY_VARIABLE

    key = os.environ.get(KEY_VARIABLE)
    listing = (fetch_models if refresh else list_models)(base_url, key)
    print_models(listing, contains, all_models)
    console.write_figures(json, figures(listing, contains, all_models))
    where = "" if base_url == OPENROUTER else f" --base-url {quote(typed_url(base_url))}"
    console.finish({}, [f"interp explain --model MODEL{where} --estimate"])


def verdict(n_unusable: int, n_asked: int, work: Work) -> int:
    """Exit code 4 when too much of what was asked has no usable answer."""
    if not n_asked or n_unusable / n_asked <= work.max_failures:
        return OK
    console.complain(
        f"{n_unusable} of {n_asked} have no usable answer ({n_unusable / n_asked:.1%}; "
        f"--max-failures {work.max_failures:g}); ask them again with --retry-failed"
    )
    return FAILURES
