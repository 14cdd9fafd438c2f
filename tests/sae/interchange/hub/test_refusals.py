"""What the hub refuses, or what is wrong with it, is one line without the token."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sae.core.errors import FAILURES, USAGE, UserError
from sae.interchange.hub.parcel import pack
from sae.interchange.hub.push_pull import push
from tests.support.commands import sae
from tests.support.sae.hub_parcels import REPO
from tests.support.servers.fake_hub import TOKEN, FakeHub, Repo


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, USAGE, "does not take the token (401)"),
        (403, USAGE, "403"),
        (404, USAGE, "404"),
        (429, FAILURES, "429"),
        (400, USAGE, "not with Bearer ***"),
        (500, FAILURES, "not with Bearer ***"),
    ],
)
def test_each_refusal_is_one_line_without_the_token(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: int,
    said: str,
) -> None:
    hub.status, hub.echo = status, True
    for command in (("push", model, REPO), ("pull", REPO, "--out", tmp_path / "out")):
        assert sae(*command) == code
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert TOKEN not in error


def test_without_a_token_the_line_says_how_to_log_in(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    hub.repos[REPO] = Repo(private=True)
    assert sae("push", model, "ann/new") == USAGE
    assert sae("pull", REPO, "--out", tmp_path / "out") == USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("HF_TOKEN" in line for line in errors)


def test_a_hub_that_is_down_is_one_line(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    for command in (("push", model, REPO), ("pull", REPO, "--out", tmp_path / "out")):
        assert sae(*command) == FAILURES
        error = capsys.readouterr().err
        assert "cannot reach the hub" in error
        assert error.count("\n") == 1


def test_a_commit_of_somebody_else_is_not_overwritten(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae("push", model, REPO)
    hub.rival = True
    assert sae("push", model, REPO, "--license", "mit") == FAILURES
    assert "changed meanwhile" in capsys.readouterr().err
    assert "rival.txt" in hub.files(REPO)
    assert sae("push", model, REPO, "--license", "mit") == 0


@pytest.mark.parametrize("repo", ["name", "a/b/c", "../x", "a/..", "a/b c", "https://x/y"])
def test_what_is_no_id_is_refused_before_anything_is_sent(
    hub: FakeHub, model: Path, repo: str
) -> None:
    with pytest.raises(UserError, match="owner/name"):
        push(pack(model), "", repo)
    assert sae("push", model, repo, "--dry-run") == USAGE
    assert hub.asked == []
