"""Where an SAE to import lies: a path here, or a repository on the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from sae.core.errors import UserError
from sae.core.places import require_sae
from sae.model.sae import is_ours

_NAME = r"[A-Za-z0-9][\w.-]*"
_PLAIN = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(@(?P<revision>[\w.-]+))?")
_MARKED = re.compile(rf"hf:{_PLAIN.pattern}(/(?P<folder>[^@]+))?")


class HubPlace(NamedTuple):
    """A repository of the hub, or a folder or file in it."""

    repo: str
    """owner/name"""
    revision: str | None
    """Branch, tag or commit; None: the newest."""
    folder: str
    """Relative to the repository; "": all of it."""


def locate(text: str) -> Path:
    """The foreign SAE that `text` means: see `find`. Raises `UserError` for one of our own on the
    hub.
    """
    here, place = find(text), hub_place(text)
    if place is not None and is_ours(here):
        raise UserError(f"{place.repo} is one of our own SAEs: `sae pull {place.repo} --out DIR`")
    require_sae(here)
    return here


def find(text: str) -> Path:
    """The file or folder that `text` means, fetched from the hub where it is not here.

    `hf:owner/name[@revision][/folder]`, or plain `owner/name[@revision]` where no such path exists.
    Raises `UserError` when the hub has no such thing.
    """
    place = hub_place(text)
    if place is None:
        return Path(text)
    from sae.interchange.hub.push_pull import download

    try:
        return download(place.repo, place.revision, folder=place.folder) / place.folder
    except UserError as error:
        where = "" if text.startswith("hf:") else f"{text} is no file or folder here; on the hub: "
        raise UserError(f"{where}{error}", error.exit_code) from None


def hub_place(text: str) -> HubPlace | None:
    """What of the hub is meant; None when a path is."""
    marked = text.startswith("hf:")
    found = (_MARKED if marked else _PLAIN).fullmatch(text)
    if not marked and (found is None or _is_here(text)):
        return None
    folder = (found["folder"] or "").strip("/") if found and marked else ""
    if found is None or ".." in folder.split("/"):
        raise UserError(f"{text!r} is no hub id; write hf:owner/name, with @revision and /folder")
    return HubPlace(found["repo"], found["revision"], folder)


def _is_here(text: str) -> bool:
    """A path, or a misspelt one: its first folder is here."""
    path = Path(text)
    return path.exists() or path.parts[0] in ("..", "~") or Path(path.parts[0]).is_dir()
