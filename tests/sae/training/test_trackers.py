from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sae.core.errors import UserError
from sae.core.files import read_jsonl
from sae.data.store import EmbeddingStore
from sae.training import trackers
from sae.training.config import TrainConfig
from sae.training.context import TrainContext
from sae.training.loop import TrainRow
from sae.training.train import train
from tests.support.commands import sae
from tests.support.sae.stores import oracle, write_store

SMALL = TrainConfig(n_latents=24, k=4, batch_size=64, n_tokens=64 * 40)
ROW = TrainRow(step=7, tokens=448, loss=0.5, fvu=0.4, aux=0.25, l0=3.5, dead=0.125, lr=4e-3)


class Calls:
    """Stands for a tracker's package, and remembers what it was told."""

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.n_closed = 0

    def init(self, **settings: Any) -> SimpleNamespace:
        self.opened.append(settings)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.n_closed += 1


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    x, _ = oracle(300, 8, 12, n_active=(1, 2))
    return write_store(tmp_path / "store", x.view(150, 2, 8))


def installed(monkeypatch: pytest.MonkeyPatch, kind: str) -> Calls:
    calls = Calls()
    module = ModuleType(kind)
    module.__dict__.update(init=calls.init, log=calls.log, finish=calls.finish)
    monkeypatch.setitem(sys.modules, kind, module)
    return calls


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_a_tracker_gets_settings_once_and_every_row_with_its_step(
    kind: str, store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = installed(monkeypatch, kind)
    out = tmp_path / "mine"
    train(store, out, SMALL, TrainContext(log=kind))
    (settings,) = calls.opened
    assert settings["name"].startswith("mine-")
    assert settings["config"]["k"] == 4
    rows = read_jsonl(out / "train.jsonl")
    wanted = [
        (row.pop("step"), {f"train/{name}": value for name, value in row.items()}) for row in rows
    ]
    assert calls.logged == wanted
    assert calls.n_closed == 1


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_a_training_that_goes_on_is_the_same_run_and_a_new_one_is_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = installed(monkeypatch, kind)
    for n_done in (0, 20):
        with trackers.tracking(kind, tmp_path, SMALL, n_done) as log:
            log(ROW)
    trackers.forget(tmp_path)
    with trackers.tracking(kind, tmp_path, SMALL, 0):
        pass
    first, again, other = (settings["name"] for settings in calls.opened)
    assert first == again != other
    assert calls.n_closed == 3
    assert {settings["resume"] for settings in calls.opened} == {"allow"}


def test_tensorboard_shows_every_row_and_forgets_what_a_resumed_training_repeats(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for n_done, steps in ((0, range(1, 31)), (20, range(21, 41))):
        with trackers.tracking("tensorboard", tmp_path, SMALL, n_done) as log:
            for step in steps:
                log(ROW._replace(step=step, fvu=1 / step + n_done))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/fvu")
    assert [event.step for event in events] == list(range(1, 41))
    assert events[24].value == pytest.approx(1 / 25 + 20)


def test_a_missing_package_is_one_line_before_anything_is_written(
    store: EmbeddingStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert sae("train", store.path, "--out", tmp_path / "sae", "--log", "wandb") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sae: --log wandb needs a package that is not installed")
    assert "pip install wandb" in line
    assert not (tmp_path / "sae").exists()


def test_an_unknown_tracker_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"tensorbord.*did you mean 'tensorboard'"):
        trackers.require("tensorbord")
    trackers.require("")
