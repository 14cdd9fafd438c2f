"""Small trainings, and what may come between."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor

from sae.core.progress import Bar
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE
from sae.training.config import TrainConfig
from sae.training.loop import NotFinite, Trainer, TrainRow, run
from tests.support.sae.stores import oracle, write_store

SMALL = TrainConfig(n_latents=48, k=3, batch_size=64, n_tokens=64 * 40, holdout=0.2)


def small_store(path: Path) -> EmbeddingStore:
    """600 tokens of 24 directions, two an image."""
    x, _ = oracle(600, 16, 24, n_active=(1, 3))
    return write_store(path, x.view(300, 2, 16))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def fit(
    model: SAE, batches: Iterator[Tensor], config: TrainConfig, progress: Bar | None = None
) -> TrainRow:
    """Train `model` in place on raw embeddings; the last row. Raises `NotFinite`."""
    [row] = run([Trainer(model, config)], batches, progress=progress)
    if isinstance(row, NotFinite):
        raise row
    return row


def stop_at(step: int, when: Callable[[], bool] = lambda: True) -> Bar:
    """A progress bar that presses ctrl-C once `step` is done; not in trials of learning rates."""

    def progress(done: int, total: int, text: str = "", /) -> None:
        if done == step and "trying" not in text and when():
            signal.raise_signal(signal.SIGINT)

    return progress


def poison(monkeypatch: pytest.MonkeyPatch, rate: float, at_step: int) -> None:
    """Training at `rate` meets what is no number after `at_step` steps."""
    step = Trainer.step

    def poisoned(self: Trainer, x: Tensor, *rest: object) -> object:
        is_bad = self.config.lr == rate and self.n_done == at_step
        return step(self, x * float("nan") if is_bad else x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", poisoned)
