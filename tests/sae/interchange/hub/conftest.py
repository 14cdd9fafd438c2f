"""An SAE that goes to the fake hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sae.hub_parcels import saved


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A finished SAE folder whose config.json and eval.json name no place."""
    return saved(tmp_path / "sae")
