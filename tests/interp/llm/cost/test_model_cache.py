"""A list of models is kept for a day."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from interp.llm.cost.model_list import (
    fetch_models,
    list_models,
    read_cached_models,
)
from tests.support.servers.loopback import Loopback
from tests.support.servers.model_entries import entry


def test_cached_listing_equals_the_fetched_one_without_a_socket() -> None:
    with Loopback(listing={"data": [entry(), {"id": "bare"}]}) as server:
        assert read_cached_models(server.base_url) is None
        assert server.requests == []
        fetched = fetch_models(server.base_url, None)
        assert list_models(server.base_url + "/", None) == fetched
        assert len(server.requests) == 1
    assert read_cached_models(server.base_url) == fetched


def test_listing_older_than_a_day_is_fetched_again_but_can_still_be_read(cache: Path) -> None:
    with Loopback() as server:
        fetch_models(server.base_url, None)
        (file,) = cache.glob("*.json")
        stored = json.loads(file.read_text())
        old = datetime.now(UTC) - timedelta(days=1, minutes=1)
        file.write_text(json.dumps({**stored, "fetched": old.isoformat()}))
        stale = read_cached_models(server.base_url)
        assert stale is not None
        assert not stale.is_fresh
        assert list_models(server.base_url, None).is_fresh
        assert len(server.requests) == 2


def test_each_server_has_its_own_listing() -> None:
    with Loopback(models=("a",)) as one, Loopback(models=("b",)) as other:
        list_models(one.base_url, None)
        assert list_models(other.base_url, None).models[0].id == "b"
        assert list_models(one.base_url, None).models[0].id == "a"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 99}', '{"format": 1}'])
def test_broken_cache_is_as_good_as_none(cache: Path, text: str) -> None:
    with Loopback() as server:
        fetch_models(server.base_url, None)
        (file,) = cache.glob("*.json")
        file.write_text(text)
        assert read_cached_models(server.base_url) is None
        assert list_models(server.base_url, None).models[0].id == "fake/vision"


def test_cache_of_another_format_is_as_good_as_none(cache: Path) -> None:
    with Loopback() as server:
        fetch_models(server.base_url, None)
    (file,) = cache.glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    assert read_cached_models(server.base_url) is None


def test_cache_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with Loopback() as server:
        assert fetch_models(server.base_url, None).models[0].id == "fake/vision"
