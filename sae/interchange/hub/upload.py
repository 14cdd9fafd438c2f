"""Files -> one commit of a repository on the hub, a model's or a Space's, made where absent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sae.core.errors import UserError
from sae.interchange.hub.client import (
    TIMEOUT,
    Kind,
    Listing,
    choose_upload,
    explain_errors,
    hub_api,
    is_offline,
    list_files,
    progress_bars,
    require_repo,
)
from sae.interchange.hub.parcel import Item

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Target(NamedTuple):
    """Where a commit goes."""

    repo: str
    kind: Kind = "model"
    private: bool = False
    """Made private, or required to be."""
    revision: str | None = None
    """Branch; None: the main one."""


class Pushed(NamedTuple):
    """What a push has done."""

    url: str
    """Of the commit."""
    commit: str
    removed: tuple[str, ...]
    """Files of an earlier push that the commit takes away."""
    warnings: tuple[str, ...]
    """What the hub says of the card."""


def send(
    items: Sequence[Item],
    to: Target,
    message: str,
    outdated: Callable[[Listing | None], list[str]],
) -> Pushed:
    """`outdated`: what is there -> what of it the commit takes away.

    Raises `UserError` when the hub does not take it, or when `private` is asked of a repository
    that is public.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    require_repo(to.repo)
    if is_offline():
        raise UserError("HF_HUB_OFFLINE is set; unset it to push, or look with --dry-run")
    api = hub_api()
    there = _prepared(api, to)
    removed = outdated(there)
    added = [CommitOperationAdd(item.name, item.content) for item in items]
    with (
        warnings.catch_warnings(record=True) as said,
        progress_bars(),
        choose_upload(),
        explain_errors(to.repo, to.revision),
    ):
        warnings.simplefilter("always")
        commit = api.create_commit(
            to.repo,
            [*added, *(CommitOperationDelete(name) for name in removed)],
            commit_message=message,
            repo_type=to.kind,
            revision=to.revision,
            # Nobody's commit is lost: ours is refused when another came in between.
            parent_commit=there.commit if there and len(there.commit) == 40 else None,
        )
    told = [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]
    return Pushed(str(commit.commit_url), commit.oid, tuple(removed), tuple(told))


def _prepared(api: HfApi, to: Target) -> Listing | None:
    """What the repository and branch hold; both are made where they are not there."""
    from huggingface_hub import errors

    with explain_errors(to.repo, to.revision):
        try:
            info = api.repo_info(to.repo, repo_type=to.kind, timeout=TIMEOUT)
        except errors.HfHubHTTPError as error:
            if not _is_absent(error):
                raise
            sdk = "static" if to.kind == "space" else None
            api.create_repo(to.repo, private=to.private or None, repo_type=to.kind, space_sdk=sdk)
            info = None
    if info is not None and to.private and not info.private:
        raise UserError(
            f"{to.repo} exists and is public; make it private in its settings, or push elsewhere"
        )
    if to.kind == "space" and getattr(info, "sdk", None) not in (None, "static"):
        raise UserError(f"{to.repo} is a Space with a program in it; name another, or a new one")
    with explain_errors(to.repo, to.revision):
        if to.revision is not None:
            api.create_branch(to.repo, branch=to.revision, repo_type=to.kind, exist_ok=True)
    return list_files(to.repo, to.revision, to.kind) if info is not None else None


def _is_absent(error: Any) -> bool:
    """The hub answers 401 for what is not there, to those that it does not know."""
    from huggingface_hub import errors

    known = isinstance(error, errors.RepositoryNotFoundError)
    return known or error.response.status_code == 404
