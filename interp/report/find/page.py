"""Latents that were found -> one HTML page of cards, images in it, without scripts or network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from interp.records.types import Evidence, Example
from interp.report.canvas import paint_heat
from interp.report.figures import act, fixed, percent
from interp.report.find.answers import Answer, short
from interp.report.gallery.thumbs import QUALITY, THUMB_SIZE
from interp.report.single.html import read_style, templates_in, webp_uri
from interp.run.run import Run
from sae.core.files import replacing
from sae.data.images import BadImage
from sae.data.view import Heat

N_IMAGES = 6
"""Strongest images of each latent, of all domains in turn."""
TEMPLATE, STYLE = "page.html.jinja", "page.css"
ASKED_SIZE = 260
"""Longest side, in pixels, of the image that was asked about."""
WORDS = {
    "match": "Match",
    "direction": "Direction",
    "wording": "Label says it",
    "act": "Activation",
    "percentile": "Stronger than on",
    "tokens": "Tokens",
}


def write_page(
    path: Path,
    run: Run,
    title: str,
    note: str,
    answers: Sequence[Answer],
    asked: Image.Image | None = None,
) -> Path:
    """Write the page; `asked` is the image that was asked about, shown with each latent's heat."""
    style, digest = read_style(Path(__file__).with_name(STYLE))
    page = _template().render(
        title=title,
        note=note,
        style=Markup(style),  # our own file
        style_hash=digest,
        asked=None if asked is None else _data_uri(_fitted(asked, ASKED_SIZE)),
        cards=[_card(run, answer, asked, path.parent) for answer in answers],
    )
    with replacing(path) as part:
        part.write_bytes(page.encode("utf-8", "replace"))
    return path


@cache
def _template() -> jinja2.Template:
    return templates_in(Path(__file__).parent).get_template(TEMPLATE)


def _card(run: Run, answer: Answer, asked: Image.Image | None, folder: Path) -> Mapping[str, Any]:
    evidence = run.evidence.of(answer.latent)
    said = run.results.explanation(answer.latent)
    tiles = [] if asked is None or answer.heat is None else [_asked_tile(asked, answer)]
    tiles += _tiles(run, evidence)
    link = ""
    if run.gallery.exists():
        place = Path(os.path.relpath(run.gallery.resolve(), folder.resolve())).as_posix()
        link = f"{place}#/{answer.latent}"
    return {
        "latent": answer.latent,
        "label": answer.label,
        "link": link,
        "description": said.description if said else "",
        "facts": _facts(answer, evidence),
        "tiles": tiles,
    }


def _facts(answer: Answer, evidence: Evidence) -> list[tuple[str, str]]:
    facts = [
        (WORDS[name], short(name, value) + (" of its images" if name == "percentile" else ""))
        for name, value in answer.figures.items()
    ]
    if not math.isnan(answer.auroc):
        interval = (
            f"{fixed(answer.auroc)} ({fixed(answer.auroc_low)} to {fixed(answer.auroc_high)})"
        )
        facts.append(("AUROC of the label, 95%", interval))
    facts += [("Support", answer.supported)] if answer.supported else []
    return [*facts, ("Active on", f"{percent(evidence.stats.frequency)} of the images")]


def _asked_tile(asked: Image.Image, answer: Answer) -> Mapping[str, str]:
    words = f"here {act(answer.figures['act'])}"
    image = _data_uri(_with_heat(asked, answer.heat))
    alt = "The image that was asked about, red where the latent is active"
    return {"kind": "asked", "image": image, "alt": alt, "words": words}


def _tiles(run: Run, evidence: Evidence) -> list[Mapping[str, str]]:
    tops = evidence.of("explain", "top")
    domains = [[e for e in tops if e.domain == domain] for domain in run.evidence.info.domains]
    in_turn = chain.from_iterable(zip_longest(*domains))
    tiles: list[Mapping[str, str]] = []
    for example in islice((e for e in in_turn if e is not None), N_IMAGES):
        if (image := _image(run, example)) is not None:
            words = f"{example.domain} {act(example.act)}"
            alt = f"{example.domain} {example.label}".strip()
            tiles.append({"kind": "top", "image": image, "alt": alt, "words": words})
    return tiles


def _image(run: Run, example: Example) -> str | None:
    try:
        return _data_uri(_with_heat(run.evidence.image(example), run.evidence.heat(example)))
    except BadImage:
        return None


def _with_heat(image: Image.Image, heat: Heat | None) -> Image.Image:
    small = _fitted(image, THUMB_SIZE)
    if heat is None:
        return small
    return Image.fromarray(paint_heat(np.asarray(small), heat))


def _fitted(image: Image.Image, side: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _data_uri(image: Image.Image) -> str:
    return webp_uri(image, QUALITY, 2)
