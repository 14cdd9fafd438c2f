"""The sub-commands that ask models, and those that tell what models there are and what was paid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.judged import run_tasks
from interp.cli.preview import preview
from interp.llm.types import OPENROUTER, is_transient, typed_url
from interp.pipeline.judging_settings import JudgingSettings
from interp.pipeline.settings import JudgeSettings, ModelSettings, Work, choose_latents
from interp.records.circular import CIRCULAR, is_circular
from interp.records.support import ENOUGH
from interp.records.wording import SPEAKS_TO_JUDGE, WEAK_NEGATIVES
from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.cli.options import spread
from sae.core.errors import FAILURES, OK, quote

if TYPE_CHECKING:
    from interp.explain.run import ExplainSummary
    from interp.llm.failures import Reason
    from interp.pipeline.stage import Stage
    from interp.run.run import Run
    from interp.score.run import ScoreSummary

RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Name under results/, or a folder; default: the newest run, or the one named last.",
    ),
]


@spread
def explain(
    settings: ModelSettings,
    work: Work,
    run: RunOption = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Also latents that fire on more than 10% of the tokens.")
    ] = False,
    vocabulary: Annotated[
        str,
        typer.Option(
            help="Its words: auto, world, hard, general, or a file.",
            rich_help_panel="With --model local",
        ),
    ] = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Ask a model what the images of each latent share.

    A stopped run goes on, and nothing is paid twice. The key is read from OPENROUTER_API_KEY.
    """
    from interp.pipeline.explain import ExplainStage
    from interp.report.labels import write_labels

    opened = open_run(run)
    chosen = choose_latents(opened.evidence, work.latents, dense)
    settings = dataclasses.replace(settings, vocabulary=vocabulary)
    stage = ExplainStage(opened, settings, chosen, work)
    if work.sends_nothing:
        return preview(opened, [stage], work, json)
    summary = stage.run()
    _say_explained(summary, settings)
    _say_refusals(stage)
    console.write_figures(json, _flat(summary._asdict()))
    written = {"labels": write_labels(opened), "answers": opened.explanations}
    n_left = len(set(chosen)) - summary.n_skipped - summary.n_labelled - summary.n_failed
    if n_left:
        console.say(f"{n_left} latents are left; the same command without --limit does them")
    has_labels = any(e.label for e in opened.results.newest_explanations().values())
    again = "" if all(is_transient(kind) for kind in summary.failures) else " --retry-failed"
    stage_next, more = ("score", "") if has_labels else ("explain", again)
    run_again = f"{settings.typed} --run {quote(opened.path)}{more}"
    console.finish(written, [f"interp {stage_next} {run_again}"])
    return verdict(summary.n_unusable, summary.n_asked, work)


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
            help="Labels that say nothing, on the same images: none, or (the default) what fits "
            "the judge.",
            show_default=False,
        ),
    ] = "",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Predict from each label which held-out images activate its latent: AUROC with interval.

    --kind asks other judging tasks, with or without it; docs/scores.md says what each means.
    """
    from interp.cli.controls import go_through_controls
    from interp.pipeline.controls import read_controls
    from interp.pipeline.judging import Judging
    from interp.report.controls import flat, side_by_side, table
    from interp.report.labels import write_labels

    opened = open_run(run)
    if names := read_controls(control):
        return go_through_controls(opened, names, settings, control_latents, work, nulls, json)
    plan = Judging(opened, settings, judging, control, work, nulls)
    if work.sends_nothing:
        return preview(opened, plan.stages, work, json)
    figures: dict[str, float | int | str] = {}
    counts: list[tuple[int, int]] = []
    if plan.detect is not None:
        summary = plan.detect.run()
        circular = is_circular(summary.scorer, opened.info.clip)
        _say_scored(summary, circular)
        rows = side_by_side(opened)
        if len(rows) > 1:
            console.print_table(table(rows))
        _say_refusals(plan.detect)
        figures |= {**_flat(dataclasses.asdict(summary)), **flat(rows), "circular": circular}
        counts.append((summary.n_missing, summary.n_images))
    figures |= run_tasks(plan, counts)
    console.write_figures(json, figures)
    written = {"labels": write_labels(opened)}
    written |= {"scores": opened.scores} if plan.detect else {}
    written |= {"tasks": opened.tasks} if opened.tasks.exists() else {}
    console.finish(written, [f"interp cards --run {quote(opened.path)}"])
    return verdict(sum(n for n, _ in counts), sum(n for _, n in counts), work)


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


def ledger(
    run: RunOption = None,
    rows: Annotated[bool, typer.Option("--list", help="One line a call.")] = False,
    model: Annotated[
        str | None, typer.Option(help="With --list: only calls to this model.", show_default=False)
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="With --list: only explain, score, score-control, score-TASK or preflight.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write all calls as JSON Lines to this file.",
            show_default=False,
            callback=console.require_file,
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """What was asked and paid in a run: sums, single calls, or all of it as JSON Lines."""
    from interp.cli import ledger
    from interp.llm.ledger.report import export as export_calls

    path = open_run(run).ledger
    if export is not None:
        console.say(f"{export_calls(path, export)} calls")
        console.finish({"calls": export})
        return
    if rows:
        ledger.print_rows(path, model, stage)
    else:
        ledger.print_totals(path)
    console.write_figures(json, ledger.figures(path))


def verdict(n_unusable: int, n_asked: int, work: Work) -> int:
    """Exit code 4 when too much of what was asked has no usable answer."""
    if not n_asked or n_unusable / n_asked <= work.max_failures:
        return OK
    console.complain(
        f"{n_unusable} of {n_asked} have no usable answer ({n_unusable / n_asked:.1%}; "
        f"--max-failures {work.max_failures:g}); ask them again with --retry-failed"
    )
    return FAILURES


def _flat(fields: dict[str, Any]) -> dict[str, float | int | str]:
    """One flat object: each kind of failure as failures/KIND, and so reasons and remarks."""
    kinds, reasons = fields.pop("failures", {}), fields.pop("reasons")
    nulls = fields.pop("nulls", ())
    remarks = fields.pop("remarks", {})
    return {
        **fields,
        **{f"failures/{kind}": n for kind, n in kinds.items()},
        **{f"reasons/{kind}: {words}": n for kind, words, n in reasons},
        **{f"remarks/{code}": n for code, n in remarks.items()},
        **{f"nulls/{kind}": area for kind, area in nulls},
    }


def _say_reasons(reasons: Iterable[Reason]) -> None:
    for reason in reasons:
        if reason.words:
            console.say(f"    {reason.n} x {reason.words}")
            console.say(f"      {reason.remedy}")


def _say_refusals(stage: Stage[Any, Any, Any]) -> None:
    for line in stage.refusals():
        console.say(f"  asked with {line}")


def _say_failures(summary: ExplainSummary | ScoreSummary) -> None:
    for kind, n in sorted(summary.failures.items()):
        console.say(f"  {n} failed: {kind}")
        _say_reasons(reason for reason in summary.reasons if reason.kind == kind)


def _say_explained(summary: ExplainSummary, settings: ModelSettings) -> None:
    before = f"; {summary.n_skipped} were done before" if summary.n_skipped else ""
    console.say(f"{summary.n_labelled} latents labelled by {settings.model}{before}")
    if summary.n_unclear or summary.n_several:
        console.say(
            f"  {summary.n_unclear} of them are unclear (marked wherever they are shown), "
            f"{summary.n_several} have a second label"
        )
    _say_failures(summary)
    if summary.remarks:
        counted = sorted(summary.remarks.items(), key=lambda pair: (-pair[1], pair[0]))
        console.say(f"  remarks on labels: {', '.join(f'{n} {code}' for code, n in counted)}")
    if summary.failures.get("too_few_images", 0) > summary.n_labelled:
        console.say(
            "  most latents fire on too few images: train fewer latents (--n-latents), add images, "
            "or take the dense latents too (--dense)"
        )
    if summary.n_unusable:
        console.say(f"  {summary.n_unusable} of {summary.n_asked} asked have no usable answer")
    say_cost(summary.usd)


def _say_scored(summary: ScoreSummary, circular: bool) -> None:
    what = "labels of other latents (control)" if summary.control else "labels"
    if summary.n_scored + summary.n_failed == 0:
        console.say("nothing to score: no latent has a label; run `interp explain` first")
        return
    _say_failures(summary)
    _say_reasons(reason for reason in summary.reasons if reason.kind not in summary.failures)
    if not summary.n_scored:
        return
    console.say(
        f"{summary.n_scored} {what} scored by {summary.scorer}: mean AUROC {summary.auroc:.3f} "
        f"(random negatives {summary.auroc_easy:.3f}, hard ones {summary.auroc_hard:.3f}), "
        f"balanced accuracy {summary.balanced_accuracy:.3f}"
    )
    if not math.isnan(summary.auroc_low):
        console.say(
            f"  95% interval over latents {summary.auroc_low:.3f} to {summary.auroc_high:.3f}; "
            f"strongest two fifths {summary.auroc_strong:.3f}"
        )
    if not math.isnan(summary.rho):
        console.say(
            f"  over all held-out images: correlation with the activation {summary.rho:.3f} "
            f"({summary.rho_low:.3f} to {summary.rho_high:.3f}), precision of a grade of 50 or "
            f"more {summary.precision_at_base_rate:.3f}"
        )
    alarm = "; TOO MANY to trust the figures" if summary.missing_alarm else ""
    console.say(
        f"  {summary.n_missing} of {summary.n_images} answers missing "
        f"({summary.missing_rate:.1%}), counted as chance{alarm}"
    )
    notes = {SPEAKS_TO_JUDGE: summary.n_noted, WEAK_NEGATIVES: summary.n_weak}
    for note, n_noted in notes.items():
        if n_noted:
            console.say(f"  {n_noted} have a note (see `note` in labels.csv): {note}")
    _say_supported(summary)
    if circular:
        console.say(f"  {CIRCULAR}; --judge-clip NAME judges with another")
    say_cost(summary.usd)


def _say_supported(summary: ScoreSummary) -> None:
    n = summary.n_supported + summary.n_undecided + summary.n_unsupported
    if not n:
        return
    nulls = ", ".join(f"{kind} {area:.3f}" for kind, area in summary.nulls)
    console.say(f"  labels that say nothing, on the same images: mean AUROC {nulls}")
    console.say(
        f"  supported: {summary.n_supported} of {n} ({summary.supported:.1%}, 95% interval "
        f"{summary.supported_low:.1%} to {summary.supported_high:.1%}), "
        f"{summary.n_undecided} undecided, {summary.n_unsupported} not"
    )
    if 0 < summary.n_others < ENOUGH:
        console.say(
            f"  only {summary.n_others:,} other labels were there to rank with: p is at least "
            f"{1 / (1 + summary.n_others):.2g}, and from {ENOUGH:,} on more labels can be supported"
        )


def say_cost(usd: float) -> None:
    if math.isnan(usd):
        console.say("  the server does not say what it bills")
    elif usd > 0:
        console.say(f"  cost of these answers: ${usd:.4f}")
