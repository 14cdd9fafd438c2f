"""kill -9 at any file event of a pull: the same command again ends as an unbroken one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import sae
from tests.support.interp.killing import run_in_child
from tests.support.servers.fake_hub import FakeHub


@pytest.mark.parametrize("n_kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_a_killed_pull_leaves_a_complete_folder_or_none(
    hub: FakeHub, model: Path, tmp_path: Path, n_kills: int
) -> None:
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    hub.add("me/sae", files)
    whole = tmp_path / "whole" / "out"
    whole.parent.mkdir()
    n_events = run_in_child(lambda: sae("pull", "me/sae", "--out", whole), whole.parent)
    assert n_events > 3
    names = {path.name for path in whole.iterdir()}
    for place in range(0, n_events, max(1, n_events // n_kills)):
        out = tmp_path / f"at{place}" / "out"
        out.parent.mkdir()
        run_in_child(lambda: sae("pull", "me/sae", "--out", out), out.parent, kill_at=place)  # noqa: B023
        assert not out.exists() or {path.name for path in out.iterdir()} == names
        if not out.exists():
            assert sae("pull", "me/sae", "--out", out) == 0
        assert {p.name: p.read_bytes() for p in out.iterdir()} == {
            p.name: p.read_bytes() for p in whole.iterdir()
        }
