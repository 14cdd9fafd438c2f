"""`interp transfer`: do labels that were found in one domain hold in another?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli import ask
from interp.cli.ask import RunOption, VocabularyOption
from interp.cli.preview import preview_in_all
from interp.cli.said import say_cost
from interp.pipeline.settings import ModelSettings, Work
from interp.records.circular import CIRCULAR, is_circular
from interp.records.family import LOCAL
from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.cli.options import spread
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.pipeline.transfer import Made


@spread
def transfer(
    settings: ModelSettings,
    work: Work,
    run: RunOption = None,
    domains: Annotated[
        str, typer.Option(help="The two, of a run with more: a,b.", show_default=False)
    ] = "",
    judge: Annotated[
        str, typer.Option(help="Who grades the images; default: --model.", show_default=False)
    ] = "",
    judge_clip: Annotated[
        str,
        typer.Option(
            help="CLIP that judges; better another than the SAE's. Default: --clip; without it, on "
            "the built-in world, the built-in one that the SAE is not made of, else the store's.",
            rich_help_panel="With --model local",
            show_default=False,
        ),
    ] = "",
    vocabulary: VocabularyOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Does a label found in one domain hold in another? Explain and score across two domains.

    Each latent is named from images of either domain alone, and both labels are tested on held-out
    images of either. Labels and scores of the run itself stay as they are.
    """
    from interp.pipeline.transfer import TransferStage, choose_domains
    from interp.report.labels import write_labels
    from interp.report.transfer_figure import draw_transfer

    opened = ask.open_run(run)
    explainer = dataclasses.replace(settings, vocabulary=vocabulary)
    clip = judge_clip or settings.clip
    by_default = LOCAL if settings.is_linear else settings.model
    judging = dataclasses.replace(explainer, model=judge or by_default, clip=clip)
    if judging.is_linear:
        raise UserError(f"--judge {judge} explains and does not judge; judge with {LOCAL}")
    chosen = work.choose(opened.evidence)
    pair = choose_domains(opened, domains)
    stage = TransferStage(opened, explainer, judging, pair, chosen, work)
    if work.sends_nothing:
        estimates = stage.estimates() if work.estimate else []
        return preview_in_all(estimates, stage.write_requests, work, json)
    made = stage.run()
    say_transfer(made, opened.info.clip)
    console.write_figures(json, made.transfer.flat())
    if n_left := len(stage.all_pending) - len(stage.pending):
        console.say(f"{n_left} latents are left; the same command without --limit does them")
    written = {
        "transfer": made.path,
        "figure": draw_transfer(opened.path),
        "labels": write_labels(opened),
    }
    console.finish(written, [f"interp cards --run {quote(opened.path)}"])
    return transfer_verdict(made, work)


def say_transfer(made: Made, clip: str) -> None:
    """The four means, the classes, and what to know about them."""
    header, *rows = made.transfer.table()
    console.print_table(rows, header)
    for line in made.transfer.lines():
        console.say(f"  {line}")
    n_images = sum(one.n_images for one in made.scored)
    n_missing = sum(one.n_missing for one in made.scored)
    if n_missing:
        console.say(f"  {n_missing} of {n_images} answers missing, counted as chance")
    say_cost(sum(e.usd for e in made.explained) + sum(s.usd for s in made.scored))
    if is_circular(made.scored[0].scorer, clip):
        console.say(f"  {CIRCULAR}")


def transfer_verdict(made: Made, work: Work) -> int:
    """Exit code 4 when too much of what was asked has no usable answer."""
    explained = [(one.n_unusable, one.n_asked) for one in made.explained]
    scored = [(one.n_missing, one.n_images) for one in made.scored]
    verdicts = []
    for pairs in (explained, scored):
        verdicts.append(ask.verdict(sum(n for n, _ in pairs), sum(n for _, n in pairs), work))
    return max(verdicts)
