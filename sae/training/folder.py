"""The folder of an SAE while it is trained: settings, log, checkpoints, and what was there before.

train.json           the settings as they were given
lr.json              with `--lr auto`: the learning rate that was chosen, and why
train.jsonl          a line per percent
checkpoints/         until it is finished
sae.safetensors      the SAE
config.json          last: with it the folder is finished
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from sae.core.errors import UserError
from sae.core.files import (
    append_jsonl,
    build_strictly,
    read_config,
    replacing,
    walk_jsonl,
    write_json,
)
from sae.data.store import EmbeddingStore
from sae.model.sae import CONFIG, SAE, SAEConfig, is_ours
from sae.training import checkpoint, trackers
from sae.training.checkpoint import Checkpoint
from sae.training.config import UNRECORDED, TrainConfig
from sae.training.loop import TrainRow

SETTINGS = "train.json"
LR = "lr.json"
LOG = "train.jsonl"


def is_own(out: Path) -> bool:
    """Whether an SAE is there, finished or not, or the settings of one that was just begun."""
    if is_ours(out):
        return True
    settings = out / SETTINGS
    start = settings.read_bytes()[:4096] if settings.is_file() else b""
    return b'"n_latents"' in start and b'"expansion"' in start


def load_finished(
    out: Path, config: TrainConfig, store: EmbeddingStore, device: torch.device
) -> SAE | None:
    """The SAE in `out`; None where there is none yet.

    Raises `UserError` when it was trained with other settings than `config`, or on another store.
    """
    if not (out / CONFIG).exists():
        return None
    model = SAE.load(out, device)
    _require_same(out, "an SAE", model.config, config, store)
    checkpoint.discard(out / checkpoint.FOLDER)  # a kill at the very end leaves it
    return model


def load_unfinished(
    out: Path, config: TrainConfig, store: EmbeddingStore, device: torch.device
) -> Checkpoint | None:
    """Where a stopped training was. Raises `UserError` when its settings or store are others."""
    found = checkpoint.newest(out, device)
    if found is not None:
        _require_same(out, "an unfinished SAE", found.model.config, config, store)
    return found


def read_log(out: Path) -> list[TrainRow]:
    """The lines of train.jsonl. Raises `UserError` with the number of one that is none of ours."""
    return [
        build_strictly(TrainRow, line.values, f"{out / LOG}, line {line.number},")
        for line in walk_jsonl(out / LOG)
    ]


def prepare(out: Path, config: TrainConfig, n_done: int) -> None:
    """Clear away what is not of this training, or is later than the step that it goes on from."""
    (out / CONFIG).unlink(missing_ok=True)
    if n_done == 0:
        for name in (LOG, LR):
            (out / name).unlink(missing_ok=True)
        checkpoint.discard(out / checkpoint.FOLDER)
        trackers.forget(out)
    else:
        lines = [row._asdict() for row in read_log(out) if row.step <= n_done]
        with replacing(out / LOG) as part:
            part.touch()
            append_jsonl(part, lines)
    write_json(out / SETTINGS, config)


def finish(out: Path, model: SAE) -> None:
    """Write the trained SAE; its checkpoints are of no more use."""
    model.save(out)
    checkpoint.discard(out / checkpoint.FOLDER)


def _require_same(
    out: Path, what: str, trained: SAEConfig, config: TrainConfig, store: EmbeddingStore
) -> None:
    remedy = "give another --out or --overwrite"
    if trained.store != store.info.identity:
        raise UserError(f"{out} holds {what} of another store; {remedy}")
    before = dataclasses.asdict(read_config(out / SETTINGS, TrainConfig, remedy))
    for name, value in dataclasses.asdict(config).items():
        if name not in UNRECORDED and before[name] != value:
            was, now = (_typed(name, given) for given in (before[name], value))
            raise UserError(f"{out} holds {what} trained with {name} {was}, not {now}; {remedy}")


def _typed(name: str, value: object) -> object:
    """A setting as a user would type it."""
    if value == "":
        return "unset"
    return "auto" if name == "lr" and not value else value
