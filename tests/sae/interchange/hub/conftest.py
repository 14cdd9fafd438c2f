"""A fake hub, and an SAE that goes there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hf
import pytest

from tests.support.sae.hub_parcels import saved
from tests.support.servers.fake_hub import TOKEN, FakeHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, with a token for it and a cache of its own."""
    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(hf, "HF_HUB_DISABLE_TELEMETRY", True)  # it would ask huggingface.co
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FakeHub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A finished SAE folder whose config.json and eval.json name no place."""
    return saved(tmp_path / "sae")
