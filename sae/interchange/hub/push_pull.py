"""SAEs on the Hugging Face hub: ours go up and come back; others' files are fetched to be imported.

A push is one commit. A pull is checked and loaded before its folder appears.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from sae.core.errors import UserError
from sae.core.files import read_config, replacing_folder
from sae.interchange.hub import client
from sae.interchange.hub.client import (
    Listing,
    RepoFile,
    fetch,
    list_files,
    matches,
)
from sae.interchange.hub.labels import LABELS_TABLE, labels_table
from sae.interchange.hub.parcel import (
    CARD,
    ITEMS,
    LABELS,
    MOST_BYTES,
    MOST_GALLERY_FILES,
    Item,
    Parcel,
    is_publishable,
)
from sae.interchange.hub.stranger import is_data_of_gallery, make_harmless
from sae.interchange.hub.upload import Pushed, Target, send
from sae.model.sae import CONFIG, SAE, WEIGHTS, SAEConfig, is_ours

if TYPE_CHECKING:
    pass

ALLOWED = (".safetensors", ".json", ".yaml", ".yml", ".pt", ".pth", ".gz", ".npy", ".md")
"""Kinds of files that are fetched of a repository that is not ours."""
MOST_DOWNLOAD = 50 << 30
MOST_IN_GALLERY = 16 << 20
"""Bytes of one file."""


class Pulled(NamedTuple):
    """What a pull has brought."""

    model: SAE
    commit: str
    files: tuple[RepoFile, ...]


def push(
    parcel: Parcel,
    card: str,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "",
) -> Pushed:
    """Send an SAE and its card, all in one commit; the repository is made where there is none.

    Raises `UserError` when the hub does not take it, or when `private` is asked of a repository
    that is public.
    """
    items, c = [*parcel.items, Item(CARD, card.encode())], parcel.config
    message = message or f"SAE: {c.n_latents} latents, {c.activation}, d {c.d}"
    where = Target(repo, private=private, revision=revision)
    return send(items, where, message, lambda there: _outdated(there, items))


def pull(repo: str, out: Path, revision: str | None = None, overwrite: bool = False) -> Pulled:
    """Fetch an SAE of ours, check it, load it once, and put it in `out`: complete or absent.

    Of its gallery only data is fetched, and shown by our own page: see `make_harmless`.
    Raises `UserError` when it is none of ours, of an unknown format, damaged, or when `out` is
    taken.
    """
    require_room(out, overwrite)
    listing = list_files(repo, revision)
    files = _ours(listing)
    client.require_room(listing, files, out)
    config, weights = (next(f for f in files if f.name == name) for name in (CONFIG, WEIGHTS))
    with replacing_folder(out) as part:
        _fetch_into(part, listing, [config])
        _require_plausible(part / CONFIG, weights, listing)
        (part / CONFIG).rename(part / f"{CONFIG}.last")
        _fetch_into(part, listing, [f for f in files if f is not config])
        (part / f"{CONFIG}.last").rename(part / CONFIG)
        try:
            make_harmless(part)
            if any(file.name == LABELS_TABLE for file in listing.files):
                _write_table(part)
            model = SAE.load(part)
        except UserError as error:
            said = str(error).replace(f"{part}/", "").partition("; ")[0]
            raise UserError(f"{repo}: {said}; nothing of it is kept") from None
    return Pulled(model, listing.commit, files)


def download(
    repo: str,
    revision: str | None = None,
    allow: Sequence[str] = ALLOWED,
    folder: str = "",
) -> Path:
    """Fetch another lab's files, to be imported; returns the folder in huggingface_hub's cache.

    Only files whose names end in one of `allow` are fetched, and of `folder` only, if one is
    given: a folder of the repository, or a single file. Nothing of them is opened.
    """
    listing = list_files(repo, revision)
    wanted = [f for f in listing.files if f.name.endswith(tuple(allow)) and _is_safe(f.name)]
    inside = PurePosixPath(folder)
    wanted = [
        f for f in wanted if inside in (PurePosixPath(f.name), *PurePosixPath(f.name).parents)
    ]
    if not wanted:
        place = f"{repo}/{folder}" if folder else repo
        raise UserError(f"{place} has no file that could be an SAE ({', '.join(allow)})")
    n_bytes = sum(f.n_bytes or 0 for f in wanted)
    if n_bytes > MOST_DOWNLOAD:
        raise UserError(
            f"{repo} has {len(wanted)} files of {n_bytes / 1e9:.0f} GB; name one folder of it: "
            f"hf:{repo}/{PurePosixPath(wanted[0].name).parent}"
        )
    client.require_room(listing, wanted)
    paths = fetch(listing, wanted)
    return paths[0].parents[len(PurePosixPath(wanted[0].name).parts) - 1]


def require_room(out: Path, overwrite: bool) -> None:
    """Raise `UserError` unless `out` is free, or, with `overwrite`, holds an SAE of ours."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not is_ours(out):
        raise UserError(f"{out} exists and is no SAE of ours; give another --out")
    if not overwrite:
        raise UserError(f"{out} holds an SAE; give another --out, or --overwrite")


def _outdated(there: Listing | None, items: Sequence[Item]) -> list[str]:
    """What of an earlier, other SAE would lie beside the new one and be taken for its own."""
    if there is None:
        return []
    weights = next(item.content for item in items if item.name == WEIGHTS)
    earlier = next((file for file in there.files if file.name == WEIGHTS), None)
    if earlier is None or (isinstance(weights, Path) and matches(weights, earlier)):
        return []
    new = {item.name for item in items}
    return sorted(f.name for f in there.files if is_publishable(f.name) and f.name not in new)


def _ours(listing: Listing) -> tuple[RepoFile, ...]:
    files = tuple(f for f in listing.files if f.name in ITEMS or is_data_of_gallery(f.name))
    lacking = {CONFIG, WEIGHTS} - {file.name for file in files}
    if lacking:
        raise UserError(
            f"{listing.repo} has no {' and no '.join(sorted(lacking))}, so it is no SAE of ours; "
            f"`sae import hf:{listing.repo} --out DIR` reads those of other labs"
        )
    for file in files:
        most = None if file.name == WEIGHTS else MOST_BYTES.get(file.name, MOST_IN_GALLERY)
        if most is not None and (file.n_bytes or 0) > most:
            raise UserError(
                f"{file.name} of {listing.repo} has {file.n_bytes:,} bytes, more than {most:,}"
            )
    if len(files) > MOST_GALLERY_FILES + 10:
        raise UserError(f"{listing.repo} has {len(files):,} files, more than an SAE's gallery may")
    return files


def _require_plausible(config: Path, weights: RepoFile, listing: Listing) -> None:
    """Refuse an unknown format, and sizes that the weights cannot have, before they are fetched."""
    try:
        c = read_config(config, SAEConfig)
    except UserError as error:
        said = str(error).replace(str(config), CONFIG)
        raise UserError(
            f"{listing.repo}: {said}; update this program, or use `sae import hf:{listing.repo}` "
            "if it is another lab's"
        ) from None
    n_numbers = 2 * c.n_latents * c.d
    # float16 at least, float64 at most; biases, thresholds and the header besides.
    most = 8 * n_numbers + 64 * (c.n_latents + c.d) + (1 << 20)
    if weights.n_bytes is not None and not 2 * n_numbers <= weights.n_bytes <= most:
        raise UserError(
            f"{listing.repo}: {CONFIG} tells of {c.n_latents} latents of width {c.d}, but "
            f"{WEIGHTS} has {weights.n_bytes:,} bytes; it is damaged"
        )


def _fetch_into(folder: Path, listing: Listing, files: Sequence[RepoFile]) -> None:
    for file, path in zip(files, fetch(listing, files), strict=True):
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _write_table(folder: Path) -> None:
    """labels.parquet anew, of the labels.csv that was checked: a stranger's is not fetched."""
    if (folder / LABELS).exists():
        (folder / LABELS_TABLE).write_bytes(labels_table((folder / LABELS).read_bytes()))


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name
