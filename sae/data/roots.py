"""A store's `roots` and paths -> where an image lies, or a refusal: a store may be a stranger's.

Roots are taken that this user has named on this machine: to `sae embed` and `sae adopt`, or with
`--images`. What was named is kept in `~/.local/state/sae-interp/roots/`. Of embeddings of which
nothing is kept (a store of an older version) roots are taken that lie in the store's own folder of
folders.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path

from sae.core.errors import Notice, UserError, quote
from sae.core.files import read_config, replacing, sha256_hex, write_json
from sae.data.sources.archives import size_of
from sae.data.sources.folders import parse_domains
from sae.data.store_format import StoreInfo
from sae.data.store_writer import relative_roots

LINKS = "links"
"""What a kept file says where links may lead out of the roots."""


def remember(info: StoreInfo, follow_links: bool = False) -> None:
    """Keep that this user has named the roots of these embeddings."""
    try:
        with replacing(_kept(info)) as part:
            part.write_text(LINKS if follow_links else "", encoding="utf-8")
    except (OSError, UserError) as error:
        warnings.warn(
            f"{_kept(info).parent} cannot be written ({error}): commands that show "
            "images will ask where they are; set XDG_STATE_HOME to a folder that can be written",
            Notice,
            stacklevel=2,
        )


def follows_links(store: Path, info: StoreInfo) -> bool:
    """Whether links may lead out of the roots; raises `UserError` for roots of a stranger."""
    try:
        return _kept(info).read_text(encoding="utf-8") == LINKS
    except OSError:
        around, unknown = store.resolve().parent, not _kept(info).parent.exists()
        if unknown and around not in (Path.home(), Path(around.anchor)):
            places = [(store.resolve() / root).resolve() for root in info.roots.values()]
            if all(place.is_relative_to(around) for place in places):
                return False
    roots = ", ".join(f"{name}={root}" for name, root in info.roots.items())
    raise UserError(
        f"{store} says that its images are in {roots}, and nobody has named these folders here; "
        f"say where they are: {name_images(store, info)}"
    )


def name_images(store: Path, info: StoreInfo) -> str:
    """The command that names the roots of a store."""
    return f"`interp collect SAE {quote(store)} {_wanted(info)}`"


def require_inside(paths: Iterable[str], place: Path) -> None:
    """Raise `UserError` for a path of images.parquet that is not below its domain's root."""
    for path in paths:
        if not path or "\0" in path or path[0] in "/\\" or ".." in path or ":" in path:
            parts = Path(path).parts
            if not parts or "\0" in path or Path(path).anchor or ".." in parts:
                raise UserError(f"{place}: the path {path!r} leaves its domain's folder; refused")


def locate(root: Path, path: str, follow_links: bool) -> Path:
    """An image under its root. Raises `UserError` when a link leads out of there."""
    found = root / path
    if not follow_links and not _is_below(root, found):
        raise UserError(
            f"{found} is, or lies behind, a link out of {root}; put the image there, or name the "
            "folder again with --follow-links"
        )
    return found


def _is_below(root: Path, path: Path) -> bool:
    """With all links followed: below the root there is mostly none, which is quickly seen."""
    parts = accumulate(path.relative_to(root).parts, os.path.join, initial=str(root))
    if not any(map(os.path.islink, islice(parts, 1, None))):
        return True
    return path.resolve().is_relative_to(root.resolve())


def confirm(store: Path, images: Sequence[str], follow_links: bool = False) -> None:
    """Take the folders in `images` (NAME=DIR; DIR alone for all domains) as the store's roots.

    Without any nothing is done. Raises `UserError` when a domain is missing, or the store's images
    are not there.
    """
    if not images:
        return
    info = read_config(store / "store.json", StoreInfo)
    if not any(info.roots.values()):
        raise UserError(
            f"{store} does not know its images one by one; `sae adopt` it with --images"
        )
    items = list(images)
    if len(items) == 1 and "=" not in items[0]:
        items = _of_one_folder(Path(items[0]), list(info.roots))
    roots = parse_domains(items, apart=False)
    if set(roots) != set(info.roots):
        raise UserError(f"the domains of {store} are {', '.join(info.roots)}; {_wanted(info)}")
    _require_images(store, roots)
    named = replace(info, roots=relative_roots({name: roots[name] for name in info.roots}, store))
    if named != info:
        write_json(store / "store.json", named)
    remember(named, follow_links)


def _of_one_folder(folder: Path, domains: Sequence[str]) -> list[str]:
    if len(domains) == 1:
        return [f"{domains[0]}={folder}"]
    return [f"{name}={folder / name}" for name in domains]


def _require_images(store: Path, roots: dict[str, Path]) -> None:
    """One image of each domain must be there: which it is, its hash says when it is read."""
    import pandas as pd

    images = pd.read_parquet(store / "images.parquet", columns=["path", "domain"])
    require_inside(images["path"], store / "images.parquet")
    for domain, root in roots.items():
        paths = images["path"][images["domain"] == domain]
        if len(paths) and not any(_is_there(root / path) for path in paths):
            raise UserError(
                f"{root} has no image of the domain {domain!r} of {store}, such as {paths.iloc[0]}"
            )


def _is_there(path: Path) -> bool:
    try:
        size_of(path)
    except OSError:
        return False
    return True


def _wanted(info: StoreInfo) -> str:
    return " ".join(f"--images {name}=DIR" for name in info.roots)


def _kept(info: StoreInfo) -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    roots = json.dumps(sorted(info.roots.items()))
    known = Path(home) / "sae-interp" / "roots" / sha256_hex(info.identity.encode())
    return known / sha256_hex(roots.encode())
