"""The address of a file of the gallery -> its bytes and type; nothing outside of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".webp": "image/webp",
    ".png": "image/png",
    ".json": "application/json",
    ".parquet": "application/octet-stream",
}
"""What a gallery is made of; no file of another kind is given out."""
START = "index.html"
INDEX = "data/index.js"
"""The one file that the verdicts of now are put before."""
_STRICT, _ASKS = "default-src 'none';", "default-src 'none'; connect-src 'self';"
"""A page that is opened from the disk may send nothing; this one sends verdicts to us alone."""


class Page(NamedTuple):
    """One file as it is sent."""

    name: str
    """Its place in the gallery."""
    data: bytes
    type: str


def read_page(gallery: Path, address: str) -> Page | None:
    """The file that an address names; None for any that is none of the gallery's own."""
    parts = unquote(urlsplit(address).path).removeprefix("/").split("/")
    parts = [START] if parts == [""] else parts
    if any(part.startswith(".") or not part or set(part) & set("\\:\0") for part in parts):
        return None
    path = gallery.joinpath(*parts)
    type_ = TYPES.get(path.suffix)
    if type_ is None or not path.is_file() or not _is_within(path, gallery):
        return None
    data, name = path.read_bytes(), "/".join(parts)
    if name == START:
        data = data.replace(_STRICT.encode(), _ASKS.encode(), 1)
    return Page(name, data, type_)


def _is_within(path: Path, folder: Path) -> bool:
    """Also where a link in the folder leads out of it."""
    return path.resolve().is_relative_to(folder.resolve())
