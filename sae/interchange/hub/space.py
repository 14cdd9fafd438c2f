"""A run's gallery -> a static page on the hub: a Space, which anyone can open in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.core.files import parse_object
from sae.interchange.hub.client import Listing
from sae.interchange.hub.gallery import Packed
from sae.interchange.hub.model_card import TAGS, CardSettings
from sae.interchange.hub.parcel import (
    CARD,
    GALLERY,
    MOST_GALLERY_BYTES,
    MOST_GALLERY_FILES,
    Item,
)
from sae.interchange.hub.scrub import cut_places, require_no_key
from sae.interchange.hub.stranger import is_data_of_gallery
from sae.interchange.hub.upload import Pushed, Target, send

_PAGE, _INDEX = "index.html", "data/index.js"


def space_card(run: Path, settings: CardSettings) -> str:
    """README.md of the Space: the front matter that makes it a static page, and what it shows.

    Raises `UserError` when a name in it holds an access key.
    """
    from huggingface_hub import SpaceCardData

    info = parse_object((run / "run.json").read_bytes(), str(run / "run.json"))
    data = SpaceCardData(
        title=settings.repo.rpartition("/")[2],
        sdk="static",
        app_file=_PAGE,
        license=settings.license or None,
        datasets=list(settings.datasets) or None,
        tags=list(TAGS),
    )
    text = f"---\n{str(data.to_yaml()).strip()}\n---\n\n{_body(info, settings)}"
    require_no_key(text, CARD)
    return cut_places(text).text


def push_space(packed: Packed, card: str, to: Target, message: str = "") -> Pushed:
    """Send a gallery and its README.md to a Space, in one commit; it is made where there is none.

    Raises `UserError` when the gallery is too large, the Space holds another page or a program, or
    the hub does not take it.
    """
    n_bytes = sum(item.n_bytes for item in packed.items)
    if len(packed.items) > MOST_GALLERY_FILES or n_bytes > MOST_GALLERY_BYTES:
        raise UserError(
            f"the gallery has {len(packed.items):,} files of {n_bytes / 1e6:,.0f} MB, and at most "
            f"{MOST_GALLERY_FILES:,} of {MOST_GALLERY_BYTES / 1e6:,.0f} MB go up; `interp cards "
            "--single` makes single cards"
        )
    items = [*packed.items, Item(CARD, card.encode())]
    return send(items, to, message or "Gallery of latents", lambda at: _outdated(at, items))


def _outdated(there: Listing | None, items: Sequence[Item]) -> list[str]:
    """Data and pictures of an earlier gallery, which this one does not have."""
    if there is None:
        return []
    names, new = {file.name for file in there.files}, {item.name for item in items}
    if _PAGE in names and _INDEX not in names:
        raise UserError(f"{there.repo} holds a page that is no gallery; name another Space")
    return sorted(n for n in names - new if is_data_of_gallery(f"{GALLERY}/{n}"))


def _body(info: dict[str, Any], settings: CardSettings) -> str:
    clip, layer = without_place(str(info["clip"])), info["layer"]
    hook = "projected image embedding" if layer == "projected" else f"block {layer}"
    licence = settings.license or "None was given: ask the owner of this Space before use."
    return (
        f"# {settings.repo.rpartition('/')[2]}\n\n"
        f"What the {info['n_latents']:,} latents of a sparse autoencoder respond to, looked at on "
        f"{info['n_images']:,} images: CLIP `{clip}`, {hook}, tokens `{info['tokens']}`. Every "
        "label is tested on images that its explainer never saw.\n\n"
        "The page is static: a verdict that is given on it stays in the reader's browser, until it "
        f"is exported.\n\n## Licence\n\n{licence}\n"
    )
