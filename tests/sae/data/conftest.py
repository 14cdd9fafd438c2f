"""A store as another library wrote it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.sae.foreign_stores import (
    SAEV,
)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(SAEV, tmp_path / "shards"))
