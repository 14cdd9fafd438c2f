"""`interp ledger`: what was paid in a run; `interp ledger merge`: the parts of a run -> one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.ask import RunOption, open_run
from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.llm.ledger.merge import Taken
    from interp.llm.ledger.report import Total
    from interp.run.run import Run

ledger = typer.Typer(name="ledger", invoke_without_command=True)


@ledger.callback()
def show(
    context: typer.Context,
    run: RunOption = None,
    listed: Annotated[bool, typer.Option("--list", help="One line a call.")] = False,
    model: Annotated[
        str | None, typer.Option(help="With --list: only calls to this model.", show_default=False)
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="With --list: only explain, select, disambiguate, score, "
            "score-foils, score-TASK, "
            "score-control, preflight.",
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
    from interp.llm.ledger.report import export as export_calls

    if context.invoked_subcommand is not None:
        return
    path = open_run(run).ledger
    if export is not None:
        console.say(f"{export_calls(path, export)} calls")
        console.finish({"calls": export})
        return
    if listed:
        print_rows(path, model, stage)
    else:
        print_totals(path)
    console.write_figures(json, figures(path))


@ledger.command("merge")
def merge(
    parts: Annotated[
        list[str], typer.Argument(help="Runs that --part was given in, or their folders.")
    ],
    run: Annotated[
        str, typer.Option("--run", help="The run that takes them in: a name, or a folder.")
    ],
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Bring what parts of a run were told, and what it cost, into one run.

    A part is a copy of the run's folder in which `interp explain`, `score` or `transfer` worked
    with --part. Nothing is paid or written twice, and the parts stay as they are. Stopped at any
    moment, the same command finishes.
    """
    from interp.report.labels import write_labels
    from interp.run.run import Run

    named = [Run.open(part) for part in parts]
    opened = Run.open(run)
    taken, n_lines = merge_parts(opened, named)
    figures = {**taken._asdict(), "n_lines": n_lines, "n_parts": len(parts)}
    console.say(
        f"{taken.n_calls:,} answers and {n_lines:,} lines of {len(parts)} parts are new in "
        f"{opened.path}"
    )
    if taken.n_twice:
        console.say(f"  {taken.n_twice} questions were paid for in several parts; one answer stays")
    console.write_figures(json, figures)
    console.finish(
        {"labels": write_labels(opened)},
        [f"interp ledger --run {quote(opened.path)}", f"interp cards --run {quote(opened.path)}"],
    )


def merge_parts(run: Run, parts: Sequence[Run]) -> tuple[Taken, int]:
    """What the ledger has taken in, and the lines that were appended to the run's journals.

    All runs are held meanwhile. Raises `UserError`, before anything is taken in, where a part is
    none of this run, or contradicts another one.
    """
    from interp.llm.ledger.ledger import Ledger
    from interp.llm.ledger.merge import Taken
    from interp.run.merge import find_lacking, require_part, take_settings

    folders = [part.path.resolve() for part in parts]
    if run.path.resolve() in folders or len({*folders}) < len(folders):
        raise UserError(f"a run is named twice; name each part once, and {run.path} with --run")
    for part in parts:
        require_part(run, part)
    paid = [part.ledger for part in parts if part.ledger.exists()]
    with ExitStack() as held:
        for part in parts:
            held.enter_context(closing(part.hold()))
        ours = Ledger(run.ledger) if paid else None
        held.enter_context(closing(run.hold() if ours is None else ours))
        lacking = find_lacking(run, parts)
        taken = Taken()
        for path in paid:
            assert ours is not None
            taken = taken.plus(ours.take_in(path))
        for lines in lacking:
            lines.append()
        take_settings(run, parts)
    return taken, sum(len(lines.numbers) for lines in lacking)


def figures(path: Path) -> dict[str, float | int]:
    """The numbers of `print_totals` as one flat object: `usd`, `explain/MODEL/PROVIDER/usd`."""
    from interp.llm.ledger.report import overall, sum_unanswered, totals

    lost = sum_unanswered(path)
    found = _figures("", overall(path))
    for total in totals(path):
        found |= _figures(f"{total.stage or '-'}/{total.model}/{total.provider or '-'}/", total)
    return found | {
        "n_unanswered": sum(each.n for each in lost),
        "usd_unanswered": math.fsum(each.usd for each in lost),
        "usd_risked": math.fsum(each.risked for each in lost),
    }


def print_totals(path: Path) -> None:
    """A table of the sums, when the calls were made, and what was lost on the way."""
    from interp.llm.ledger.report import overall, sum_unanswered, totals

    whole = overall(path)
    if whole.n_calls:
        lines = [_cells(_title(total), total) for total in totals(path)]
        header = ("stage, model (provider)", "calls", "prompt", "completion", "USD", "a latent")
        console.print_table([*lines, _cells("all", whole)], header)
        console.say(f"  answered from {_minute(whole.first)} to {_minute(whole.last)} UTC")
    else:
        console.say("no answered call yet")
    for each in sum_unanswered(path):
        console.say(
            f"  {each.stage or '-'}: {each.n} without an answer (lost, or still in flight): "
            f"billed {_usd(each.usd)}, perhaps up to {_usd(each.risked)} more"
        )


def print_rows(path: Path, model: str | None = None, stage: str | None = None) -> None:
    """One line a call, oldest first."""
    from interp.llm.ledger.report import rows

    lines = [
        (
            row.created[:19].replace("T", " "),
            *map(_printable, (row.about or "-", row.model, row.provider or "-")),
            str(row.prompt_tokens),
            str(row.completion_tokens),
            "unknown" if math.isnan(row.usd) else f"{row.usd:.6f}",
            _printable(row.finish_reason),
            row.key[:12],
        )
        for row in rows(path, model, stage)
    ]
    if not lines:
        console.say("no such call")
        return
    header = ("UTC", "about", "model", "provider", "prompt", "completion", "USD", "end", "key")
    console.print_table(lines, header)


def _figures(prefix: str, total: Total) -> dict[str, float | int]:
    numbers = {name: n for name, n in total._asdict().items() if isinstance(n, int | float)}
    numbers["usd_per_latent"] = total.usd_per_latent
    return {prefix + name: number for name, number in numbers.items()}


def _title(total: Total) -> str:
    provider = f" ({total.provider})" if total.provider else ""
    return _printable(f"{total.stage or '-'} {total.model}{provider}")


def _cells(title: str, total: Total) -> tuple[str, ...]:
    a_latent = total.usd_per_latent
    return (
        title,
        f"{total.n_calls:,}",
        f"{total.prompt_tokens:,}",
        f"{total.completion_tokens:,}",
        _cost(total),
        "-" if math.isnan(a_latent) else f"${a_latent:.6f}",
    )


def _cost(total: Total) -> str:
    if total.n_unknown == total.n_calls:
        return "unknown"
    return _usd(total.usd) + (f" + {total.n_unknown} unknown" if total.n_unknown else "")


def _usd(usd: float) -> str:
    return f"${usd:.4f}"


def _minute(created: str) -> str:
    return created[:16].replace("T", " ")


def _printable(text: str) -> str:
    """Names come from servers: none may steer the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
