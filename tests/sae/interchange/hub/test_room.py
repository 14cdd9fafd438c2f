"""What a pull or an import needs is looked for before anything is fetched or measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sae.core.errors import OK, USAGE
from sae.interchange import measure
from tests.support.commands import sae
from tests.support.paths import DATA
from tests.support.sae.hub_parcels import REPO
from tests.support.servers.fake_hub import FakeHub

FOREIGN = DATA / "ttt_topk_pt" / "checkpoint.pt"


class Usage(NamedTuple):
    free: int


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let every disk have so many bytes free."""
    return lambda n: monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(n))


def sent(hub: FakeHub, model: Path) -> int:
    """Put the SAE on the hub; its bytes."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    hub.add(REPO, files)
    return sum(map(len, files.values()))


def fetched(hub: FakeHub) -> bool:
    return any("/resolve/" in line for line in hub.asked)


def test_a_pull_without_room_fetches_nothing(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    leave: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    n_bytes, out = sent(hub, model), tmp_path / "out"
    for free, place in ((n_bytes - 1, out), (2 * n_bytes - 1, tmp_path / "hub-cache")):
        leave(free)
        assert sae("pull", REPO, "--out", out) == USAGE
        assert f"no room in {place}: it needs " in capsys.readouterr().err
    assert not fetched(hub)
    assert not list(tmp_path.glob("out*"))
    leave(2 * n_bytes)
    assert sae("pull", REPO, "--out", out) == OK
    leave(n_bytes)  # what is in the cache needs none there
    assert sae("pull", REPO, "--out", tmp_path / "again") == OK


def test_an_import_without_room_fetches_and_measures_nothing(
    hub: FakeHub,
    tmp_path: Path,
    leave: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.add(REPO, {"checkpoint.pt": FOREIGN.read_bytes()})
    leave(1000)
    monkeypatch.setattr(measure, "sample", lambda *_: pytest.fail("measured"))
    for source, place in ((f"hf:{REPO}", "hub-cache"), (FOREIGN, "out")):
        words = ("import", source, "--out", tmp_path / "out", "--store", tmp_path)
        assert sae(*words) == USAGE
        assert f"no room in {tmp_path / place}: it needs " in capsys.readouterr().err
    assert not fetched(hub)
    assert not list(tmp_path.glob("out*"))


def test_a_folder_that_is_taken_is_told_before_an_import_fetches(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add(REPO, {"checkpoint.pt": FOREIGN.read_bytes()})
    assert sae("import", f"hf:{REPO}", "--out", model) == USAGE
    assert "an SAE is there; give another --out or --overwrite" in capsys.readouterr().err
    assert hub.asked == []
