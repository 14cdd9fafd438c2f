"""A run's gallery -> its files as they may be handed over: to a Space of the hub, or in one zip.

Left out is what is true on this machine alone: local.js, and what no page needs.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sae.core.errors import UserError, quote
from sae.core.files import replacing
from sae.core.places import kind_of, refuse_place
from sae.interchange.hub.parcel import GALLERY, Item, clean_texts, gallery_items
from sae.interchange.hub.scrub import cut_places

_EARLY = (1980, 1, 1, 0, 0, 0)
"""The date of every file in a zip: equal galleries give equal bytes."""
_SMALL_ALREADY = (".webp", ".png", ".jpg")


class Packed(NamedTuple):
    """A gallery that may be handed over."""

    items: tuple[Item, ...]
    """Names as seen from its index.html."""
    notes: tuple[str, ...]
    """What was cut or left out."""


def pack_gallery(run: Path) -> Packed:
    """Choose and clean the files of a run's gallery.

    Raises `UserError` when there is none, when a file holds an access key, or names a folder of
    this machine that cannot be cut out.
    """
    if not (run / GALLERY / "index.html").exists():
        if kind_of(run) != "run":
            raise refuse_place(run, "run")
        raise UserError(f"{run} has no gallery; `interp cards --run {quote(run)}` makes one")
    notes = list[str]()
    items = clean_texts(gallery_items(run, notes), notes)
    for item in items:
        if isinstance(item.content, bytes):  # a text that was cut
            text = item.content.decode("utf-8", "surrogateescape")
            if cut_places(text).n_places:
                raise UserError(
                    f"{item.name} still names a folder of this machine after its paths were cut; "
                    "nothing was written or sent. Take it out of the run, and build the gallery "
                    "again"
                )
    inside = (item._replace(name=item.name.removeprefix(f"{GALLERY}/")) for item in items)
    return Packed(tuple(inside), tuple(notes))


def write_zip(items: Sequence[Item], path: Path, folder: str) -> None:
    """Write the files into a zip, inside of `folder`; equal files give equal bytes."""
    with replacing(path) as part, zipfile.ZipFile(part, "w") as file:
        for item in sorted(items, key=lambda item: item.name):
            info = zipfile.ZipInfo(f"{folder}/{item.name}", _EARLY)
            info.create_system, info.external_attr = 3, 0o644 << 16
            packed = item.name.endswith(_SMALL_ALREADY)
            info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            here = item.content
            file.writestr(info, here if isinstance(here, bytes) else here.read_bytes())
