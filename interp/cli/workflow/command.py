"""`interp run` and `interp init`: from folders of images to a gallery in one command."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.pipeline.workflow.names import TABLES
from interp.pipeline.workflow.options import AskSettings, ImageSettings, SizeSettings, StepSettings
from interp.pipeline.workflow.settings import Said
from sae.cli import console
from sae.cli.console import JsonOption
from sae.cli.live import DomainArgument
from sae.cli.options import spread
from sae.core.disk import weigh
from sae.core.errors import OK, USAGE, UserError, quote
from sae.data.sources.folders import FolderConfig

if TYPE_CHECKING:
    from interp.pipeline.workflow.plan import Plan, Todo
    from interp.pipeline.workflow.settings import Settings

RunConfigOption = Annotated[
    Path | None,
    console.config_option(TABLES, " and one a step ([run.train]); `interp init` writes one"),
]


@spread
def run(
    context: typer.Context,
    out: Annotated[Path, console.declare_out("The run's folder, with its store and SAE in it.")],
    images: ImageSettings,
    asked: AskSettings,
    size: SizeSettings,
    steps: StepSettings,
    folders: FolderConfig,
    more: DomainArgument = None,
    config: RunConfigOption = None,
    json: JsonOption = None,
) -> int:
    """From folders of images to a gallery of scored labels: all steps, one after the other.

    First a plan says what each step will do, write, ask and cost. A stopped run goes on with the
    same command, and no answer is paid twice.
    """
    from interp.cli.workflow.telling import Telling
    from interp.pipeline.workflow.assemble import make_settings
    from interp.pipeline.workflow.discard import discard, find_discarded
    from interp.pipeline.workflow.early import require_models, require_settings
    from interp.pipeline.workflow.plan import Planner
    from interp.pipeline.workflow.steps import run_steps
    from interp.pipeline.workflow.wording import in_words_of_run
    from interp.run.run import Run

    domains = [*(images.domain or []), *(more or [])]
    said = _read_said(context, config)
    parts = (images, folders, size, asked, steps, said)
    with in_words_of_run():
        settings = make_settings(out, domains, *parts, fetch=not steps.estimate)
        require_settings(settings)
        Run.is_begun(out)
        planner = Planner(settings, steps.from_step)
        plan = planner.plan()
    _say_plan(plan, settings)
    misfit = _say_origin(settings)
    if misfit and not steps.estimate:
        raise UserError(misfit)
    gone = find_discarded(out, steps.from_step)
    if gone:
        will = "would be" if steps.estimate else "are"
        names = ", ".join(path.relative_to(out).as_posix() for path in gone)
        console.say(f"  --from {steps.from_step}: {will} thrown away: {names}")
        console.say("    what was paid stays in calls.sqlite, and is not paid again")
    if steps.estimate:
        console.say("nothing was sent or written; without --estimate the run begins")
        console.write_figures(json, plan.flat())
        return OK
    with in_words_of_run():
        require_models(settings, plan)
    discard(out, steps.from_step)
    telling = Telling(settings.work)
    made = run_steps(settings, telling.tell, planner.files)
    return telling.finish(made, settings, json)


def _read_said(context: typer.Context, config: Path | None) -> Said:
    """What the settings file says of single steps, and which options were typed."""
    typed = {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    return Said(str(config or ""), context.meta.get(console.TABLES, {}), typed)


def _say_plan(plan: Plan, settings: Settings) -> None:
    console.say(f"the plan of {settings.out}:")
    for todo in plan.todos:
        state = "done" if todo.is_done else _size(todo.n_bytes)
        console.say(f"  {todo.step:<9}{state:<10}{todo.what}{_cost(todo)}".rstrip())
    for line in _further(plan, settings):
        console.say(f"  {line}")


def _say_origin(settings: Settings) -> str:
    """Where the SAE of --sae was trained, and who told that; why it cannot be comes back."""
    from interp.pipeline.workflow.bring import find_misfit

    if settings.looked is None:
        return ""
    origin, source = settings.looked.origin, settings.source
    console.say(f"  the SAE was trained on: {origin.line()}")
    for name, taken in (("layer", source.layer), ("tokens", source.tokens)):
        if name in origin.missing:
            console.complain(
                f"{name} of the SAE: nobody tells; {taken} is taken, --{name} names another"
            )
    for note in origin.notes:
        console.complain(note)
    misfit = find_misfit(settings)
    if misfit:
        console.complain(misfit)
    return misfit


def _cost(todo: Todo) -> str:
    if todo.is_unknown:
        return "; its cost is known once the SAE is here"
    if todo.cost is None or todo.is_done:
        return ""
    found = todo.cost.estimate
    at_most = "at most " if todo.cost.is_bound else ""
    return f": {at_most}{found.n_requests:,} requests, {_dollars(found.usd)}"


def _further(plan: Plan, settings: Settings) -> list[str]:
    """The sums, and what to know about them."""
    lines = []
    if not math.isnan(plan.n_bytes):
        lines.append(f"about {_size(plan.n_bytes)} on the disk")
    if not settings.is_paid:
        return [*lines, "no model elsewhere is asked: it costs nothing"]
    open_ones = [cost for cost in plan.costs.values() if cost.n_pending]
    usd = math.fsum(cost.estimate.usd for cost in open_ones)
    at_most = math.fsum(cost.estimate.usd_at_most for cost in open_ones)
    n = sum(cost.estimate.n_requests for cost in open_ones)
    cap = settings.explainer.max_cost
    if cap is None:
        capped = "without --max-cost there is no cap"
    else:
        capped = f"--max-cost {cap:g} ends it before that is passed, with all earlier calls"
    lines.append(
        f"{n:,} requests, {_dollars(usd)} by what models are known to use, {_dollars(at_most)} "
        f"where each is as long as it can be; {capped}"
    )
    if any(cost.is_bound for cost in open_ones):
        lines.append(
            "at most: every latent of the SAE is counted, each with all images that can be kept; "
            "once they are collected, --estimate counts those that can be named"
        )
    if any(cost.is_partial for cost in open_ones):
        lines.append(
            "telling equal names apart comes on top, at most one question a latent: once names are "
            "there, --estimate counts it"
        )
    if math.isnan(usd):
        lines.append("no price: `interp models` fetches the list, or give --price IN,OUT")
    return lines


def _size(n_bytes: float) -> str:
    if math.isnan(n_bytes):
        return "size ?"
    return "" if n_bytes < 1e5 else weigh(n_bytes)


def _dollars(usd: float) -> str:
    return "price unknown" if math.isnan(usd) else f"${usd:,.2f}"


def init(
    out: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Settings file to write.", show_default=True),
    ] = Path("run.toml"),
) -> None:
    """Write an example of a settings file for `interp run`, with every step's table in it."""
    from importlib.resources import files

    from sae.core.files import replacing

    if out.exists():
        raise UserError(f"{out} is there already; name another file", USAGE)
    text = files("interp.pipeline.workflow").joinpath("run.toml").read_text(encoding="utf-8")
    with replacing(out) as part:
        part.write_text(text, encoding="utf-8")
    console.finish({"settings": out}, [f"interp run --config {quote(out)} --estimate"])
