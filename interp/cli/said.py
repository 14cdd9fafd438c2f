"""What a stage of asking came to -> lines for a person, and a flat object for --json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from interp.pipeline.settings import ModelSettings
from interp.records.circular import CIRCULAR, is_circular
from interp.records.support import ENOUGH
from interp.records.wording import GROUPED, SPEAKS_TO_JUDGE, WEAK_NEGATIVES
from interp.report.nulls.specificity import Specificity, mean_specificity, summary_line
from sae.cli import console

if TYPE_CHECKING:
    from interp.explain.run import ExplainSummary
    from interp.llm.failures import Reason
    from interp.pipeline.best_of.disambiguate import ToldApart
    from interp.pipeline.best_of.stages import BestOf, Made
    from interp.pipeline.stage import Stage
    from interp.records.types import Explanation
    from interp.run.results import Results
    from interp.score.run import ScoreSummary


def flatten(fields: dict[str, Any]) -> dict[str, float | int | str]:
    """One flat object: each kind of failure as failures/KIND, and so reasons and remarks."""
    kinds, reasons = fields.pop("failures", {}), fields.pop("reasons")
    nulls = fields.pop("nulls", ())
    remarks = fields.pop("remarks", {})
    ended = {name: fields.pop(name, {}) for name in ("stopped", "looks")}
    return {
        **fields,
        **{f"{name}/{key}": n for name, counts in ended.items() for key, n in counts.items()},
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


def say_refusals(stage: Stage[Any, Any, Any] | BestOf) -> None:
    for line in stage.refusals():
        console.say(f"  asked with {line}")


def _say_failures(summary: ExplainSummary | ScoreSummary) -> None:
    for kind, n in sorted(summary.failures.items()):
        console.say(f"  {n} failed: {kind}")
        _say_reasons(reason for reason in summary.reasons if reason.kind == kind)


def say_explained(summary: ExplainSummary, settings: ModelSettings) -> None:
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
            "or take the dense latents too (`interp explain --dense`)"
        )
    if summary.n_unusable:
        console.say(f"  {summary.n_unusable} of {summary.n_asked} asked have no usable answer")
    say_cost(summary.usd)


def say_chosen(made: Made, clip: str) -> dict[str, float | int | str]:
    """What the choice among labels came to, also as flat figures; `clip`: that of the SAE."""
    found, graded = made.choices, made.graded
    if found.n_compared:
        console.say(
            f"labels of {found.n_compared} latents chosen by {graded.scorer} on the side select: "
            f"{found.n_other} are not the first; mean AUROC there {found.auroc_chosen:.3f}, of the "
            f"first ones {found.auroc_first:.3f}"
        )
        console.say(
            "  the largest of several AUROCs runs high; `interp score` tests the labels on images "
            "that had no part in the choice"
        )
    if graded.n_missing:
        console.say(f"  {graded.n_missing} of {graded.n_images} answers missing there")
    circular = is_circular(graded.scorer, clip)
    if circular:
        console.say(f"  {CIRCULAR}; --select-clip NAME chooses with another")
    return {f"select/{k}": v for k, v in dataclasses.asdict(found).items()} | {
        "select/scorer": graded.scorer,
        "select/circular": circular,
    }


def say_shared(newest: Mapping[int, Explanation]) -> None:
    """How many labels several latents share, and what can be done."""
    from interp.pictures.contrast import sharers

    n = len(sharers(newest))
    if n:
        n_labelled = sum(e.label is not None for e in newest.values())
        console.say(
            f"  {n} of {n_labelled} labels are shared by several latents; --disambiguate asks what "
            "sets these apart"
        )


def say_apart(told: ToldApart, settings: ModelSettings) -> dict[str, float | int]:
    """What one round of telling equal labels apart came to, also as flat figures."""
    summary = told.summary
    before = f"; {summary.n_skipped} were before" if summary.n_skipped else ""
    if told.n_shared_before or summary.n_asked:
        console.say(
            f"{summary.n_labelled} latents with a shared label told apart by {settings.model}"
            f"{before}"
        )
        console.say(
            f"  {told.n_new} have a new label; labels shared by several latents: "
            f"{told.n_shared_before} of {told.n_labels} before, {told.n_shared} now"
        )
    else:
        console.say(f"no label is shared by several latents, of {told.n_labels}")
    _say_failures(summary)
    if summary.n_unusable:
        console.say(f"  {summary.n_unusable} of {summary.n_asked} asked have no usable answer")
    say_cost(summary.usd)
    counts = {name: value for name, value in told._asdict().items() if name != "summary"}
    return {**flatten(summary._asdict()), **counts}


def say_scored(summary: ScoreSummary, circular: bool) -> None:
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
    _say_adaptive(summary)
    alarm = "; TOO MANY to trust the figures" if summary.missing_alarm else ""
    console.say(
        f"  {summary.n_missing} of {summary.n_images} answers missing "
        f"({summary.missing_rate:.1%}), counted as chance{alarm}"
    )
    notes = {SPEAKS_TO_JUDGE: summary.n_noted, WEAK_NEGATIVES: summary.n_weak}
    notes[GROUPED] = summary.n_grouped
    for note, n_noted in notes.items():
        if n_noted:
            console.say(f"  {n_noted} have a note (see `note` in labels.csv): {note}")
    _say_supported(summary)
    if circular:
        console.say(f"  {CIRCULAR}; --judge-clip NAME judges with another")
    say_cost(summary.usd)


def _say_adaptive(summary: ScoreSummary) -> None:
    if not summary.stopped:
        return
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.stopped.items()))
    when = ", ".join(f"{n} at look {look}" for look, n in summary.looks.items())
    n_each = summary.n_images / (summary.n_scored + summary.n_failed)
    console.say(f"  adaptive: {why} ({when}); {n_each:.0f} images a label")


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


def say_newest(results: Results) -> dict[str, int]:
    """Say which scores labels.csv shows where some are adaptive; the same as figures."""
    if not any(line.score.stopped for line in results.score_lines):
        return {}
    shown = [score for n in results.newest_explanations() if (score := results.score(n))]
    n_adaptive = sum(bool(score.stopped) for score in shown)
    n_fixed = len(shown) - n_adaptive
    console.say(
        f"  labels.csv shows the newest score of each label: {n_adaptive} with --adaptive, "
        f"{n_fixed} without"
    )
    return {"n_shown_adaptive": n_adaptive, "n_shown_fixed": n_fixed}


def say_against_linear(results: Results) -> dict[str, int]:
    """Say how many labels do no better than the linear explanation; the same as figures."""
    from interp.report.nulls.baseline import against_linear, find_apart

    found, n_apart = against_linear(results), len(find_apart(results))
    if n_apart:
        console.say(
            f"  {n_apart} labels were tested on other images than their linear explanation, as "
            "with --adaptive and without: these two are not compared"
        )
    if not found:
        return {"n_apart_from_linear": n_apart} if n_apart else {}
    kept = [one for one in found.values() if not one.is_beaten]
    n_same = sum(one.same for one in kept)
    console.say(
        f"  {len(kept)} of {len(found)} labels do not beat the linear explanation's rho "
        f"({n_same} of them say the same as it)"
    )
    told = {"n_against_linear": len(found), "n_beating_linear": len(found) - len(kept)}
    return told | ({"n_apart_from_linear": n_apart} if n_apart else {})


def say_specific(found: Mapping[int, Specificity]) -> dict[str, float]:
    """Say how specific labels are on average; the same as figures."""
    if not found:
        return {}
    console.say(f"  {summary_line(found)}")
    return {"specificity": mean_specificity(found), "n_specificity": len(found)}


def say_cost(usd: float) -> None:
    if math.isnan(usd):
        console.say("  the server does not say what it bills")
    elif usd > 0:
        console.say(f"  cost of these answers: ${usd:.4f}")
