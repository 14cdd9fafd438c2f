"""What `interp doctor` finds, on this machine and on a loopback server."""

from __future__ import annotations

import pytest

from interp.cli.doctor import Finding, examine, mask_key
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Fault

KEY = "sk-or-v1-abcdefghijklmnop"


def findings(server: Loopback, model: str | None = None) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(server.base_url, model)}


def test_masked_key_tells_two_keys_apart_and_gives_neither_away() -> None:
    assert mask_key(KEY) != mask_key(KEY[:-2] + "xy")
    assert KEY[:-2] not in mask_key(KEY)
    assert mask_key("short") == "set"


def test_missing_key_is_a_remark_and_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with Loopback() as server:
        found = findings(server)
    assert not found["OPENROUTER_API_KEY"].ok
    assert found["server"].ok
    assert found["torch"].ok


def test_model_that_names_the_colour_sees_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with Loopback() as server:
        assert findings(server, "x/y")["x/y"].ok


def test_model_that_cannot_name_the_colour_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with Loopback(always=Fault("prose")) as server:
        found = findings(server, "x/y")["x/y"]
    assert not found.ok
    assert "does not see the pictures" in found.state


def test_server_that_is_not_there_is_said_in_one_line() -> None:
    with Loopback() as server:
        gone = server.base_url
    found = {finding.what: finding for finding in examine(gone, None)}
    assert "cannot be reached" in found["server"].state


def test_refused_key_is_said_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with Loopback(always=Fault("401")) as server:
        found = findings(server, "x/y")["x/y"]
    assert not found.ok
    assert "OPENROUTER_API_KEY" in found.state
    assert KEY not in found.state
