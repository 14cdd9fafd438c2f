"""Facts of latents -> results/<run>/cards/01234.html: a page each that stands alone.

No script, no request: pictures are inside, and the page's own rules forbid everything else.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interp.evidence.bad_images import report_bad_images
from interp.report.figures import act, fixed, percent
from interp.report.gallery.provenance import ReadCalls
from interp.report.single.calls import Calls, read_shown
from interp.report.single.facts import MOST_ITEMS, FactReader, Facts
from interp.report.single.html import read_style, templates_in
from interp.report.single.pictures import LADDER, Fineness, data_uri, read_small
from interp.report.single.relatives import Kinds, RelativeReader
from interp.report.single.view import make_view
from interp.run.run import Run
from sae.core.files import replacing
from sae.core.lock import LOCK, hold
from sae.core.progress import Progress

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

FOLDER = "cards"
MOST_BYTES = 150_000
"""Of a page: pictures are made smaller, then fewer, until it fits."""
RELATIVE_SIZE = 56
"""Longest side in pixels of a picture of a latent that is like the card's."""
_HERE = Path(__file__).parent


def write_singles(
    run: Run,
    latents: Sequence[int],
    progress: Progress | None = None,
    read_calls: ReadCalls | None = None,
) -> list[Path]:
    """Write `cards/01234.html` of a run for each latent, and return the paths.

    `read_calls` gives the prompts and replies behind label and score; without it they are left out.
    Equal inputs give equal bytes; each file is complete or absent. Raises `UserError` when there is
    no such latent, and with exit code 4, the cards written, when over 1% of the images are not as
    they were embedded.
    """
    folder, reader, relatives = run.path / FOLDER, FactReader(run), RelativeReader(run)
    paths = []
    with closing(hold(folder / LOCK)):
        for n_done, latent in enumerate(latents, 1):
            path = folder / f"{latent:05d}.html"
            text = single_page(reader, latent, relatives, read_calls)
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8", newline="\n")
            paths.append(path)
            if progress:
                progress(n_done, len(latents))
    report_bad_images(run.evidence, f"they are marked as missing in {folder}")
    return paths


def single_page(
    reader: FactReader,
    latent: int,
    relatives: RelativeReader,
    read_calls: ReadCalls | None = None,
) -> str:
    """The page of one latent, of at most `MOST_BYTES` bytes."""
    facts, kinds = reader.of(latent), relatives.of(latent)
    pair = (reader.run.results.explanation(latent), facts.score)
    shown = _Shown(
        read_small(reader.run.evidence, facts.images),
        kinds,
        relatives.pictures({one.latent for _, of in kinds for one in of}),
    )
    for fineness in LADDER:
        calls = read_shown(pair, read_calls, fineness.n_letters) if read_calls else None
        text = _render(reader, facts, shown, calls, fineness)
        if len(text.encode()) <= MOST_BYTES:
            return text
    raise AssertionError(f"the card of latent {latent} is too large without any picture")


def notebook_card(reader: FactReader, latent: int, png: bytes) -> str:
    """The same in words, as a piece of HTML around the picture of a sheet."""
    facts = reader.of(latent)
    view = make_view(reader.run, facts, reader.bands, LADDER[0])
    template = environment().get_template("notebook.jinja")
    return template.render(png=base64.b64encode(png).decode("ascii"), **view)


class _Shown(NamedTuple):
    """What a page shows besides the facts."""

    small: Mapping[str, Image]
    """Of the card's images, by id."""
    kinds: Kinds
    relatives: Mapping[int, Image]
    """By latent."""


def _render(
    reader: FactReader, facts: Facts, shown: _Shown, calls: Calls | None, fineness: Fineness
) -> str:
    uris: dict[int, str] = {}
    ids = list(facts.images)

    def picture(at: int) -> str:
        """The picture at a place of the card's images; "" where it is missing."""
        if at not in uris:
            image = shown.small.get(ids[at])
            uris[at] = data_uri(image, fineness) if image else ""
        return uris[at]

    def relative(latent: int) -> str:
        """The picture of a latent that is like this one; "" where it is missing."""
        image = shown.relatives.get(latent)
        side = min(fineness.side, RELATIVE_SIZE)
        return data_uri(image, fineness._replace(side=side)) if image else ""

    style, digest = read_style(_HERE / "page.css")
    view = make_view(reader.run, facts, reader.bands, fineness)
    template = environment().get_template("page.jinja")
    related = [(title, of[: fineness.n_related]) for title, of in shown.kinds if fineness.n_related]
    own = {"style": style, "digest": digest, "picture": picture, "relative": relative}
    return template.render(**own, **view, related=related, calls=calls)


@cache
def environment() -> Environment:
    """The templates of cards, and how they show figures."""
    made = templates_in(_HERE)
    made.filters |= {
        "fixed": lambda value: fixed(_known(value)),
        "percent": lambda value: percent(_known(value)),
        "act": lambda value: act(_known(value)),
        "x": lambda share: f"{100 * min(max(share, 0.0), 1.0):.2f}%",
    }
    made.globals |= {"most_items": MOST_ITEMS}
    return made


def _known(value: Any) -> float:
    return math.nan if value is None else float(value)
