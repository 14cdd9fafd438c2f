"""Real servers, started once for all tests marked "server", and a fresh ledger."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.llm.ledger.ledger import Ledger
from tests.support.commands import Walk


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened


@pytest.fixture
def run(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the collected run beside the store, which it names by a relative path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "lists"))
    copy = walk.run.with_name("served")
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(walk.run, copy))
