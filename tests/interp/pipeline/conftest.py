"""A server that answers, and a run of one's own whose first latents have labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sae.core.errors import OK
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def label_some(walk: Walk, tmp_path: Path) -> Callable[[int], Path]:
    """Makes a copy of the collected run beside its store, of which so many latents are labelled."""

    def copy(n_labels: int) -> Path:
        for name in ("store", "world"):
            (tmp_path / name).symlink_to(getattr(walk, name))
        run = Path(shutil.copytree(walk.run, tmp_path / "run"))
        assert interp("explain", "--run", run, "--model", "local", "--limit", n_labels) == OK
        return run

    return copy
