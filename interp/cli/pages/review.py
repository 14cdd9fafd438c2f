"""The sub-commands of people's verdicts: `interp review`, `interp verdicts import` and `show`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.ask import RunOption, open_run
from sae.cli import console
from sae.cli.console import ConfigOption, JsonOption
from sae.core.errors import FAILURES, OK, TERMINATED, quote

if TYPE_CHECKING:
    from interp.run.run import Run

verdicts = typer.Typer(
    name="verdicts", help="What people said of the labels of a run.", no_args_is_help=True
)


def review(
    run: RunOption = None,
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0: any that is free.", min=0, max=65535)
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the pages in a browser.")
    ] = True,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Review the labels of a run in a browser; each verdict goes into the run at once.

    Serves the gallery on 127.0.0.1 alone, until ctrl-C. Keys: 1 right, 2 partly, 3 wrong,
    4 unclear, n next, u undo, b blind.
    """
    import webbrowser

    from interp.report.labels import write_labels
    from interp.review.server import ReviewServer
    from sae.core import interrupts

    opened = open_run(run)
    make_gallery(opened)
    server = ReviewServer(opened, port)
    console.say(f"{'open:':<9} {server.address}")
    console.say("ctrl-C ends the review; verdicts are in the run as soon as the page says so")
    if browser and has_screen():
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    console.say()
    say_reviews(opened, json)
    console.finish({"labels": write_labels(opened)}, _following(opened))
    return TERMINATED if interrupts.was_terminated() else OK


@verdicts.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What the page of a gallery has exported.")],
    run: RunOption = None,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> int:
    """Take verdicts that were given in the gallery's page, without a server.

    Those on labels that have changed since are refused and named.
    """
    from interp.report.labels import write_labels
    from interp.review.intake import Intake, name_some

    opened = open_run(run)
    made = Intake(opened).import_file(file)
    console.say(f"{made.n_new} verdicts imported, {made.n_known} were here before")
    refused = {"labels that have changed": made.stale, "another run": made.foreign}
    for what, reasons in refused.items():
        if reasons:
            console.complain(f"  {len(reasons)} refused, of {what}:")
        for reason in name_some(reasons):
            console.complain(f"    {reason}")
    n = {f"n_{name}": len(getattr(made, name)) for name in ("stale", "foreign")}
    say_reviews(opened, json, {"n_imported": made.n_new, "n_known": made.n_known, **n})
    console.finish({"labels": write_labels(opened)}, _following(opened))
    return FAILURES if sum(n.values()) and not made.n_new + made.n_known else OK


@verdicts.command("show")
def show(run: RunOption = None, config: ConfigOption = None, json: JsonOption = None) -> None:
    """How many labels were reviewed, what was said of them, and whether the judge agrees."""
    say_reviews(open_run(run), json)


def has_screen() -> bool:
    """Whether a browser would open in a window, and not take the terminal."""
    named = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, named))


def make_gallery(run: Run) -> None:
    """Build the pages where there are none, or anything but verdicts came since."""
    from interp.evidence.config import FOLDER, INFO
    from interp.run.results import VERDICTS

    page = run.gallery.with_name("panel.js")
    made_of = [run.path / FOLDER / INFO, *run.path.rglob("*.jsonl")]
    newest = max(path.stat().st_mtime for path in made_of if path.name != VERDICTS)
    if page.exists() and page.stat().st_mtime >= newest:
        return
    draw_cards(run)


def draw_cards(run: Run) -> Path:
    """Build the pages, with the prompts and replies of the run's ledger; the first one's path."""
    from interp.llm.ledger.report import read_calls
    from interp.pipeline.clip.words import find_words
    from interp.report.gallery import build_gallery
    from sae.core.progress import bar

    with bar("words", unit="texts") as progress:
        words = find_words(run, progress=progress)
    with bar("cards", unit="latents") as progress:
        return build_gallery(run, progress, partial(read_calls, run.ledger), words)


def say_reviews(run: Run, json: Path | None = None, more: dict[str, int] | None = None) -> None:
    """Verdicts by kind, and how far people and judge agree; the same as figures."""
    from interp.pipeline.judging.reviews import summarise_reviews

    found = summarise_reviews(run)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in found.counts.items())
    console.say(f"{found.n_reviewed} of {found.n_labels} labels reviewed: {counts}")
    console.say(
        f"  {found.n_better} better labels by people; {found.n_blind} after a blind guess"
        + (f"; {found.n_stale} verdicts are on labels that are gone" if found.n_stale else "")
    )
    if line := found.agreement_line():
        console.say(f"  {line}")
    console.write_figures(json, {**found.flat(), **(more or {})})


def _following(run: Run) -> list[str]:
    """What is next: scoring labels of people where there are any, and new pages."""
    from interp.run.verdicts import fresh_reviews

    place = quote(run.path)
    edited = any(one.better for one in fresh_reviews(run.path, run.results).values())
    score = [f"interp score --only edited --model local --run {place}"] if edited else []
    return [*score, f"interp cards --run {place}"]
