"""A server that answers, and a run of one's own whose first latents have labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from sae.core.errors import OK
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture(scope="session")
def labelled_run(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The collected run with so many latents labelled, beside its store. Read-only."""

    @cache
    def made(n_labels: int) -> Path:
        run = _copy(walk.run, walk, tmp_path_factory.mktemp("labelled"))
        assert interp("explain", "--run", run, "--model", "local", "--limit", n_labels) == OK
        return run

    return made


@pytest.fixture
def label_some(
    walk: Walk, labelled_run: Callable[[int], Path], tmp_path: Path
) -> Callable[[int], Path]:
    """Makes a copy of the collected run beside its store, of which so many latents are labelled."""
    return lambda n_labels: _copy(labelled_run(n_labels), walk, tmp_path)


def _copy(run: Path, walk: Walk, to: Path) -> Path:
    for name in ("store", "world"):
        (to / name).symlink_to(getattr(walk, name))
    return Path(shutil.copytree(run, to / "run"))
