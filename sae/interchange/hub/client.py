"""Talking to the Hugging Face hub: what lies in a repository, a file of it, and errors in one line.

The token is that of HF_TOKEN or of huggingface_hub's stored login; it is never printed or written.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sae.core import disk
from sae.core.errors import FAILURES, USAGE, UserError
from sae.core.files import sha256_of
from sae.interchange.hub.scrub import mask_keys

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUGGING_FACE = "https://huggingface.co"
TIMEOUT = 30.0
"""Seconds to wait for a first answer."""
AT_ONCE = 8
SMALL = 8 << 20
"""Bytes from which a file is fetched by itself, under huggingface_hub's own progress bar."""
Kind = Literal["model", "space"]
"""Of repositories."""
LOGIN = "set HF_TOKEN or run `hf auth login`"


class RepoFile(NamedTuple):
    """A file of a repository."""

    name: str
    n_bytes: int | None
    """None here and below: the hub does not say."""
    sha256: str | None = None
    """Of its content, where it is a large file."""
    git_sha1: str | None = None
    """Of git's form of its content, where it is not."""


class Listing(NamedTuple):
    """A repository at a commit."""

    repo: str
    commit: str
    files: tuple[RepoFile, ...]
    revision: str | None = None
    """What was asked for: a branch, a tag or a commit; None: the main branch."""
    private: bool = False
    offline: bool = False
    """It is what was downloaded before."""


def hub_api() -> HfApi:
    """The hub at HF_ENDPOINT, or huggingface.co."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    # It warns of each retry, and we tell what came of it.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="sae-interp")


def require_repo(repo: str) -> None:
    """Raise `UserError` when `repo` cannot be the id of a repository."""
    part = r"[A-Za-z0-9_](?:[\w.-]*[\w])?"
    if not re.fullmatch(f"{part}/{part}", repo, re.ASCII) or "--" in repo or ".." in repo:
        raise UserError(f"{repo!r} is no id of a repository; write owner/name")


def list_files(repo: str, revision: str | None = None, kind: Kind = "model") -> Listing:
    """What a repository holds; with HF_HUB_OFFLINE, what was downloaded of it before."""
    require_repo(repo)
    if is_offline():
        return _downloaded(repo, revision)
    with explain_errors(repo, revision):
        info: Any = hub_api().repo_info(
            repo, revision=revision, repo_type=kind, files_metadata=True, timeout=TIMEOUT
        )
        files = [
            RepoFile(f.rfilename, f.size, f.lfs.sha256 if f.lfs else None, f.blob_id)
            for f in info.siblings or []
        ]
        commit = info.sha or revision or "main"
        return Listing(repo, commit, tuple(files), revision, bool(info.private))


def require_room(listing: Listing, files: Iterable[RepoFile], out: Path | None = None) -> None:
    """Raise `UserError` where the cache cannot take what of `files` is not in it yet, or `out` a
    copy of them all.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    cache = Path(constants.HF_HUB_CACHE)
    files = list(files)
    missing = [
        file
        for file in files
        if not isinstance(
            try_to_load_from_cache(listing.repo, file.name, revision=listing.commit), str
        )
    ]
    n_missing, n_copied = (sum(f.n_bytes or 0 for f in some) for some in (missing, files))
    if out is None:
        n_copied = 0
    else:
        disk.require_room(out, n_copied, max(f.n_bytes or 0 for f in files))
    if missing:
        both = out is not None and disk.is_same_disk(cache, out)
        largest = max(f.n_bytes or 0 for f in missing)
        disk.require_room(cache, n_missing + both * n_copied, largest)


def fetch(listing: Listing, files: Iterable[RepoFile]) -> list[Path]:
    """Download files into huggingface_hub's cache, and check every byte of them.

    What is there already is not downloaded again. Raises `UserError` when one arrives damaged.
    """
    files = list(files)
    large = [f for f in files if (f.n_bytes or SMALL) >= SMALL]
    small = [f for f in files if f not in large]
    with progress_bars():
        found = {f: _fetch_one(listing, f) for f in large}
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        with progress_bars(False):  # one for each of a thousand small pictures says nothing
            found |= zip(small, pool.map(lambda f: _fetch_one(listing, f), small), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
    if not listing.offline and files:
        # Asked for by the branch's name, the cache remembers which commit that is: for offline use.
        _path_of(listing, files[0].name, listing.revision or "main")
    return [found[file] for file in files]


@contextmanager
def progress_bars(shown: bool = True) -> Iterator[None]:
    """huggingface_hub's own, on a terminal alone."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if (shown and sys.stderr.isatty()) or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def choose_upload() -> Iterator[None]:
    """Large files go by git's LFS protocol, which every hub speaks; huggingface.co has its own."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or hub_api().endpoint != HUGGING_FACE
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def is_offline() -> bool:
    """Whether the hub must not be asked (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return constants.HF_HUB_OFFLINE or asked


@contextmanager
def explain_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what a call to the hub raises into a `UserError` of one line, without the token."""
    from huggingface_hub import errors

    unreachable: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _explain_refusal(error, repo, revision) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise _not_here(error, repo, revision) from None
    except unreachable as error:
        raise _unreachable(error) from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        # Of an upload huggingface_hub says RuntimeError, and why in its cause.
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _explain_refusal(error.__cause__, repo, revision) from None
        if isinstance(error.__cause__, unreachable):
            raise _unreachable(error.__cause__) from None
        raise UserError(f"{repo}: no answer of a hub ({_line(error)}); see HF_ENDPOINT") from None


def matches(path: Path, file: RepoFile) -> bool:
    """Whether a file here has the size and the hash that the hub tells of."""
    if file.n_bytes is not None and path.stat().st_size != file.n_bytes:
        return False
    if file.sha256:
        return sha256_of(path) == file.sha256
    if file.git_sha1 and len(file.git_sha1) == 40:
        return _git_sha1(path) == file.git_sha1
    return True


def _fetch_one(listing: Listing, file: RepoFile) -> Path:
    for again in (False, True):  # a damaged file in the cache is fetched once more
        path = _path_of(listing, file.name, listing.commit, again and not listing.offline)
        _require_inside(path, file.name, listing.repo)
        if matches(path, file):
            return path
    raise UserError(
        f"{file.name} of {listing.repo} arrived damaged: {path.stat().st_size} bytes, and its hash "
        "is not the one that the hub tells of; try again later",
        FAILURES,
    )


def _require_inside(path: Path, name: str, repo: str) -> None:
    """Raise `UserError` where a file of the cache is a link to somewhere else."""
    home = next((parent.parent for parent in path.parents if parent.name == "snapshots"), None)
    if home is not None and not path.resolve().is_relative_to(home.resolve()):
        raise UserError(f"{name} of {repo} is a link that leads out of the repository: {path}")


def _path_of(listing: Listing, name: str, revision: str, again: bool = False) -> Path:
    with explain_errors(listing.repo, revision):
        path = hub_api().hf_hub_download(
            listing.repo,
            name,
            revision=revision,
            force_download=again,
            local_files_only=listing.offline,
        )
    return Path(path)


def _downloaded(repo: str, revision: str | None) -> Listing:
    with explain_errors(repo, revision):
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        # A large file is kept under its sha256, a small one under git's sha1.
        kept = path.resolve().name if path.is_symlink() else ""
        hashes = (kept, None) if len(kept) == 64 else (None, kept)
        name = path.relative_to(folder).as_posix()
        files.append(RepoFile(name, path.stat().st_size, *hashes))
    return Listing(repo, folder.name, tuple(files), revision, offline=True)


def _git_sha1(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _explain_refusal(error: Any, repo: str, revision: str | None) -> UserError:
    from huggingface_hub import errors

    status = error.response.status_code
    at = f" at revision {revision!r}" if revision else ""
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{repo} has no revision {revision!r}; leave it out for the newest")
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{repo} is gated: ask for access on its page, and {LOGIN}")
    if status == 401 and _token():
        return UserError(f"the hub does not take the token (401) for {repo}; {LOGIN}")
    if status == 401:
        return UserError(
            f"the hub wants a login for {repo} (401), or there is no such one; {LOGIN}"
        )
    if status == 403:
        return UserError(f"the token in use may not do that to {repo} (403); {LOGIN}")
    if status == 404:
        return UserError(f"the hub has no {repo}{at} (404), or it is private; {LOGIN}")
    if status in (409, 412):
        return UserError(
            f"{repo} was changed meanwhile ({status}); run the command again", FAILURES
        )
    code = FAILURES if status == 429 or status >= 500 else USAGE
    return UserError(f"the hub refuses ({status}) for {repo}{at}: {_line(error)}", code)


def _not_here(error: Exception, repo: str, revision: str | None) -> UserError:
    if is_offline():
        at = f" at revision {revision!r}" if revision else ""
        return UserError(
            f"HF_HUB_OFFLINE is set, and {repo}{at} was not downloaded before; unset it"
        )
    return _unreachable(error.__cause__ or error)


def _unreachable(error: BaseException) -> UserError:
    place = hub_api().endpoint
    return UserError(
        f"cannot reach the hub at {place} ({_line(error)}); check the network, or set "
        "HF_HUB_OFFLINE=1 to use what was downloaded before",
        FAILURES,
    )


def _line(error: BaseException) -> str:
    text = " ".join(mask_keys(str(error), _token()).split()) or type(error).__name__
    return text[:240]


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()
