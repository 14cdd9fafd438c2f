"""The sub-commands that draw what a run came to: `interp cards`, `interp show`, `interp export`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.ask import RunOption, open_run
from interp.cli.pages.review import draw_cards, say_reviews
from sae.cli import console
from sae.cli.console import ConfigOption
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.run.run import Run

N_TOP = 20
"""Stand-alone cards where nobody says of which latents."""


def cards(
    single: Annotated[
        bool,
        typer.Option(
            "--single",
            help="Write a stand-alone HTML file for each of --latents instead, images inside, at "
            "most 150 kB: cards/01234.html in the run.",
        ),
    ] = False,
    latents: Annotated[
        str | None,
        typer.Option(
            help=f"Of --single: 3,17,100-120; top:N: the N best scores; default: top:{N_TOP}.",
            show_default=False,
        ),
    ] = None,
    run: RunOption = None,
    config: ConfigOption = None,
) -> None:
    """Write labels.csv and the gallery of latent cards from the files of a run."""
    from interp.report.labels import write_labels

    opened = open_run(run)
    if single:
        _write_singles(opened, latents or f"top:{N_TOP}")
        return
    if latents is not None:
        raise UserError("--latents goes with --single: the gallery has all of them")
    labels = write_labels(opened)
    gallery = draw_cards(opened)
    if opened.verdicts.exists():
        say_reviews(opened)
    console.finish({"labels": labels, "gallery": gallery}, [f"open {quote(gallery)} in a browser"])


def show(
    latents: Annotated[
        list[int] | None, typer.Argument(help="Latents; without any, an automatic choice.")
    ] = None,
    out: Annotated[
        Path,
        console.declare_out(
            "Folder for PNG sheets; a name in .pdf: one file, a page each.", ".pdf"
        ),
    ] = Path("sheets"),
    n: Annotated[int, typer.Option(help="How many to choose automatically.", min=1)] = 12,
    heat: Annotated[
        bool,
        typer.Option("--heat/--no-heat", help="Draw where on the images a latent of patches is."),
    ] = True,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks",
            help="Also write a 1-bit PNG for each active image: white where the latent is at least "
            "half as strong as at its strongest there.",
        ),
    ] = False,
    run: RunOption = None,
    config: ConfigOption = None,
) -> None:
    """Draw latents as sheets, PNG or PDF: top images by domain, quantiles, histogram, test."""
    from interp.report.choice import choose_telling
    from interp.report.masks import write_masks
    from interp.report.sheets import write_pdf, write_sheets

    opened = open_run(run)
    is_pdf = out.suffix.lower() == ".pdf"
    if masks and is_pdf:
        raise UserError(f"--masks writes a folder of files, and {out} is one file; give another")
    chosen = latents or choose_telling(opened, n)
    wrote = {"masks": write_masks(opened, chosen, out)} if masks else {}
    if is_pdf:
        console.finish({"sheets": write_pdf(opened, chosen, out, heat=heat)}, [])
        return
    written = write_sheets(opened, chosen, out, heat=heat)
    console.finish({"sheets": out, **wrote}, [f"open {quote(written[0])}"] if written else [])


def export(
    zip: Annotated[
        Path,
        typer.Option(
            "--zip",
            help="The file to write; unpacked, its index.html opens in a browser.",
            callback=console.require_file,
        ),
    ],
    run: RunOption = None,
    config: ConfigOption = None,
) -> None:
    """Put the gallery of a run into one file, to hand it over, without folders of this machine.

    Prompts and replies behind labels go along; a file that holds an access key is refused.
    """
    from sae.interchange.hub.gallery import pack_gallery, write_zip

    opened = open_run(run)
    packed = pack_gallery(opened.path)
    for note in packed.notes:
        console.say(f"  {note}")
    write_zip(packed.items, zip, f"{opened.path.resolve().name}-gallery")
    n_bytes = zip.stat().st_size
    console.say(f"{len(packed.items):,} files, {n_bytes / 1e6:,.2f} MB")
    console.finish({"zip": zip}, [])


def _write_singles(run: Run, spec: str) -> None:
    from interp.llm.ledger.report import read_calls
    from interp.report.single import write_singles
    from sae.core.progress import bar

    latents, read = _chosen(run, spec), partial(read_calls, run.ledger)
    with bar("cards", unit="latents") as progress:
        written = write_singles(run, latents, progress, read)
    place = written[0]
    console.finish({"cards": place.parent}, [f"open {quote(place)} in a browser"])


def _chosen(run: Run, spec: str) -> list[int]:
    """The latents of "3,17,100-120,top:20", each once; the best scores first of a `top`."""
    from interp.run.latents import choose_latents

    found: dict[int, None] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        name, colon, n = part.partition(":")
        if not colon:
            found |= dict.fromkeys(choose_latents(run.evidence, part))
        elif name == "top" and n.isascii() and n.isdigit() and int(n) > 0:
            found |= dict.fromkeys(_best(run, int(n)))
        else:
            raise UserError(f"--latents {spec!r}: {part!r} is no number, 100-120 or top:20")
    if not found:
        raise UserError(f"--latents {spec!r}: it names no latent")
    return list(found)


def _best(run: Run, n: int) -> list[int]:
    """The latents of the best scores; raises `UserError` without any score."""
    from interp.report.choice import by_score

    ranked = by_score(run)
    if not ranked:
        raise UserError(
            f"--latents top:{n}: {run.path} has no scores; run `interp score`, or name latents"
        )
    return ranked[:n]
