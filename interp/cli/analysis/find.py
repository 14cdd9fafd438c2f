"""`interp find` and `interp explain-image`: latents by words, and latents of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, JsonOption
from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.pipeline.clip.image import ExplainedImage
    from interp.report.find.answers import Answer
    from interp.run.run import Run

RunArgument = Annotated[str, typer.Argument(help="Name under results/, or a folder.")]
TopOption = Annotated[int, typer.Option(help="How many latents.", min=1)]


def find(
    run: RunArgument,
    words: Annotated[
        list[str] | None,
        typer.Argument(help='What to find: "a wheel".', show_default=False),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Latents by their activation on this image.", show_default=False),
    ] = None,
    top: TopOption = 10,
    open_page: Annotated[
        bool, typer.Option("--open", help="Also write a page with their cards, and open it.")
    ] = False,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Which latents answer to these words, or to this image? With label, score and support.

    Words are compared with each latent's direction in CLIP and with its label. What CLIP says of
    the labels is kept in the run: the first call takes longer.
    """
    from interp.run.run import Run

    query = " ".join(words or []).strip()
    if bool(query) == (image is not None):
        raise UserError('say what to find: words, like "a wheel", or --image FILE, and not both')
    opened = Run.open(run)
    if image is not None:
        found = _look_at(opened, image, device)
        answers = _answers_of(opened, found, top)
        title = f"Latents that are active on {image.name}"
        about: dict[str, Any] = {"image": image.name}
        note = f"{len(found.latents)} latents are active; the {len(answers)} most active"
        asked = found.image
    else:
        answers, is_told = _by_words(opened, query, top, device)
        title = f"Latents for “{query}”"
        about = {"query": query, "stands_out": is_told}
        note, asked = "Ordered by the mean of two: direction in CLIP, and what the label says", None
        if not is_told:
            note = "No latent stands out for these words; the nearest ones"
            console.say(note[0].lower() + note[1:] + ":")
    _say(answers)
    console.write_figures(json, {**about, "latents": [answer.json() for answer in answers]})
    following = [f"interp show {answers[0].latent} --run {quote(opened.path)}"] if answers else []
    if not open_page:
        console.finish({}, following)
        return
    from interp.pipeline.clip.vectors import FOLDER
    from interp.report.find.page import write_page

    path = opened.path / FOLDER / "latents.html"
    write_page(path, opened, title, note, answers, asked)
    console.finish({"page": path}, following)
    _open(path)


def explain_image(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(help="An image, of the run or any other.")],
    top: TopOption = 20,
    out: Annotated[
        Path | None,
        console.declare_out("Folder for page and JSON; default: explained/ in the run."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
) -> None:
    """Which latents are active on one image, how strongly, and where?

    An activation is held against the latent's own active images: 93% means that it is stronger than
    on 93% of them. Writes a page of cards and a JSON file, both called as the image's content hash.
    """
    from interp.report.find import EXPLAINED
    from interp.report.find.page import write_page
    from interp.run.run import Run
    from sae.core.clip_name import without_place
    from sae.core.files import FORMAT, write_json

    opened = Run.open(run)
    found = _look_at(opened, file, device)
    answers = _answers_of(opened, found, top)
    shown = "" if len(answers) == len(found.latents) else f"; the {len(answers)} most active"
    note = f"{len(found.latents)} latents are active{shown}"
    console.say(f"{file.name}: {note}" + ("; an image of the run" if found.is_known else ""))
    _say(answers)
    folder = opened.path / EXPLAINED if out is None else out
    page, figures = (folder / f"{found.image_id[:16]}.{ending}" for ending in ("html", "json"))
    write_page(page, opened, f"Latents that are active on {file.name}", note, answers, found.image)
    info = opened.evidence.info
    about: dict[str, Any] = {
        "format": FORMAT,
        "image": file.name,
        "image_id": found.image_id,
        "is_known": found.is_known,
        "run": opened.info.name,
        "clip": without_place(opened.info.clip),
        "layer": opened.info.layer,
        "pool": info.pool,
        "grid": list(info.grid),
        "n_tokens": found.n_tokens,
        "n_active": len(found.latents),
    }
    write_json(figures, {**about, "latents": [answer.json() for answer in answers]})
    console.finish({"page": page, "figures": figures})
    if open_page:
        _open(page)


def _by_words(run: Run, query: str, top: int, device: str) -> tuple[list[Answer], bool]:
    """The answers, and whether any of them is about these words."""
    from interp.local.ranking import SAYS_IT, STANDS_OUT
    from interp.pipeline.clip.search import LatentSearch
    from interp.report.find.answers import tell
    from sae.core.progress import bar

    with bar("words", unit="texts") as progress:
        search = LatentSearch(run, device, progress)
    [ranked] = search.rank([query], top)
    figures = [
        {"match": one.match, "direction": one.direction, "wording": one.wording} for one in ranked
    ]
    is_told = any(one.deviation >= STANDS_OUT or one.wording >= SAYS_IT for one in ranked)
    return tell(run, [one.latent for one in ranked], figures), is_told


def _look_at(run: Run, file: Path, device: str) -> ExplainedImage:
    from interp.pipeline.clip.image import explain_image

    return explain_image(run, file, device)


def _answers_of(run: Run, found: ExplainedImage, top: int) -> list[Answer]:
    from interp.report.find.answers import tell

    shown = found.latents[:top]
    figures = []
    for one in shown:
        tokens = {"tokens": float(one.n_tokens)} if found.n_tokens > 1 else {}
        figures.append({"act": one.act, "percentile": one.percentile, **tokens})
    return tell(run, [one.latent for one in shown], figures, [one.heat for one in shown])


def _say(answers: Sequence[Answer]) -> None:
    from interp.report.find.answers import table

    if answers:
        console.print_table(table(answers))
    else:
        console.say("no latent is active on it")


def _open(page: Path) -> None:
    """In a browser, where there is a screen for one."""
    import webbrowser

    from interp.cli.pages.review import has_screen

    if has_screen():
        webbrowser.open(page.resolve().as_uri())
