"""Rows of a training -> TensorBoard, trackio or Weights & Biases, beside train.jsonl."""

from __future__ import annotations

import dataclasses
import importlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sae.core.errors import UserError
from sae.core.files import did_you_mean, read_config, write_json
from sae.training.config import TrainConfig
from sae.training.loop import TrainRow

__all__ = ["TRACKERS", "forget", "require", "tracking"]

PROJECT = "sae"
RUN = "tracker.json"

OnRow = Callable[[TrainRow], None]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """tracker.json: under which name a training is known, so that a resumed one goes on there."""

    name: str
    format: int = 1


def require(kind: str) -> None:
    """Raise `UserError` when the tracker `kind` is not known or its package is not installed."""
    if not kind:
        return
    if kind not in TRACKERS:
        near = did_you_mean(kind, TRACKERS)
        raise UserError(f"--log {kind!r} is none of {', '.join(TRACKERS)}{near}")
    _package(kind)


@contextmanager
def tracking(kind: str, out: Path, config: TrainConfig, n_done: int) -> Iterator[OnRow]:
    """Send rows to the tracker `kind` ("": to none) as the training in `out`.

    `n_done` steps were done before: what was sent of later ones is superseded where the tracker
    can do so.
    """
    if not kind:
        yield lambda row: None
        return
    log, close = TRACKERS[kind](out, config, n_done)
    try:
        yield log
    finally:
        close()


def forget(out: Path) -> None:
    """The next training in `out` is another one."""
    (out / RUN).unlink(missing_ok=True)


def _tensorboard(out: Path, config: TrainConfig, n_done: int) -> tuple[OnRow, Callable[[], None]]:
    module = _package("tensorboard")
    writer = module.SummaryWriter(str(out / "tensorboard"), purge_step=n_done + 1)
    if n_done == 0:
        settings = dataclasses.asdict(config)
        text = "\n".join(f"    {name} = {value!r}" for name, value in settings.items())
        writer.add_text("settings", text)

    def log(row: TrainRow) -> None:
        for name, value in _figures(row).items():
            writer.add_scalar(name, value, row.step)

    return log, writer.close


def _trackio(out: Path, config: TrainConfig, n_done: int) -> tuple[OnRow, Callable[[], None]]:
    module = _package("trackio")
    name = _run_name(out)
    module.init(project=PROJECT, name=name, config=dataclasses.asdict(config), resume="allow")
    return lambda row: module.log(_figures(row), step=row.step), module.finish


def _wandb(out: Path, config: TrainConfig, n_done: int) -> tuple[OnRow, Callable[[], None]]:
    module = _package("wandb")
    name = _run_name(out)
    settings = dataclasses.asdict(config)
    run = module.init(
        project=PROJECT, name=name, id=name, dir=str(out), config=settings, resume="allow"
    )
    return lambda row: run.log(_figures(row), step=row.step), run.finish


TRACKERS = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb}


def _figures(row: TrainRow) -> dict[str, float]:
    """All of a row but its step."""
    return {f"train/{name}": value for name, value in row._asdict().items() if name != "step"}


def _run_name(out: Path) -> str:
    """The name of the training in `out`: its folder's, and a few letters of its own."""
    if not (out / RUN).exists():
        write_json(out / RUN, TrackedRun(f"{out.resolve().name}-{uuid.uuid4().hex[:8]}"))
    return read_config(out / RUN, TrackedRun).name


def _package(kind: str) -> Any:
    """The module that a tracker is driven through."""
    module = "torch.utils.tensorboard" if kind == "tensorboard" else kind
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--log {kind} needs a package that is not installed ({error.name}); "
            f"run `pip install {kind}`, or train without --log"
        ) from None
