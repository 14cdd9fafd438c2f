"""Checkpoints of a training: each is a folder, complete or absent; the last two are kept.

checkpoints/
    000000300/
        config.json  sae.safetensors    the SAE of that moment: any command reads the folder
        state.safetensors               Adam's moments, silence of the latents, counts
        checkpoint.json                 what it belongs to

No random state is among them: the order of the data and every draw follow from seed and step.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.core.errors import UserError
from sae.core.files import FORMAT, read_config, replacing_folder, write_json, write_tensors
from sae.model.sae import SAE
from sae.training.config import TrainConfig
from sae.training.loop import Trainer

__all__ = ["Checkpoint", "CheckpointInfo", "discard", "n_copies", "newest", "save"]

FOLDER = "checkpoints"
INFO = "checkpoint.json"
STATE = "state.safetensors"
N_KEPT = 2


@dataclass(frozen=True)
class CheckpointInfo:
    """checkpoint.json."""

    step: int
    """Steps done: the position in the stream of batches, which the seed decides."""
    n_steps: int
    engine: str
    """The engine that came so far; any other can go on, but not bit for bit."""
    format: int = FORMAT


@dataclass(frozen=True)
class Checkpoint:
    """What was read of one folder."""

    path: Path
    info: CheckpointInfo
    model: SAE
    state: dict[str, Tensor]

    def restore(self, trainer: Trainer) -> None:
        """Put a trainer where it was. Raises `UserError` when the state is not of such a one."""
        try:
            trainer.restore(self.state)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.path / STATE} does not fit ({said}); delete {self.path}, or use --overwrite"
            ) from None


def n_copies(config: TrainConfig) -> int:
    """Room that a training takes on the disk, in SAEs: its own and, where there are checkpoints,
    one with Adam's two moments beside it.
    """
    return 1 + 3 * bool(config.checkpoint_every)


def save(out: Path, trainer: Trainer) -> Path:
    """Write a checkpoint below the SAE folder `out`, and drop all but the last two.

    Raises `NotFinite`, and writes nothing, when a loss or a weight is not finite.
    """
    trainer.require_finite()
    final = out / FOLDER / f"{trainer.n_done:09d}"
    info = CheckpointInfo(trainer.n_done, trainer.n_steps, trainer.engine.name)
    state = {name: value.detach().cpu().contiguous() for name, value in trainer.state().items()}
    with replacing_folder(final) as part:
        trainer.model.save(part)
        write_tensors(part / STATE, state)
        write_json(part / INFO, info)
    for old in _complete(out)[:-N_KEPT]:
        discard(old)
    return final


def newest(out: Path, device: torch.device) -> Checkpoint | None:
    """The last checkpoint below `out` that can be read; None where there never was one.

    Raises `UserError` when there are some, and all are damaged.
    """
    damage = None
    for path in reversed(_complete(out)):
        try:
            return _read(path, device)
        except UserError as error:  # a power cut can take the newest: the one before is older
            damage = damage or error
    if damage is not None:
        raise UserError(f"no checkpoint in {out / FOLDER} can be read ({damage}); use --overwrite")
    return None


def last_good(out: Path) -> Path | None:
    """The newest checkpoint's folder."""
    return _complete(out)[-1] if _complete(out) else None


def discard(folder: Path) -> None:
    """Remove a folder, or do nothing where there is none."""
    shutil.rmtree(folder, ignore_errors=True)


def _complete(out: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in (out / FOLDER).glob("[0-9]*") if not path.suffix)


def _read(path: Path, device: torch.device) -> Checkpoint:
    info = read_config(path / INFO, CheckpointInfo)
    try:
        state = load_file(path / STATE)
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path / STATE} is damaged or missing ({error})") from None
    counts = state.get("counts")
    if counts is None or counts.shape != (2,) or counts[0] != info.step:
        raise UserError(f"{path / STATE} is not of step {info.step}, as {INFO} says")
    if not 0 < info.step < info.n_steps:
        raise UserError(f"{path / INFO} has step {info.step} of {info.n_steps}")
    return Checkpoint(path, info, SAE.load(path, device), state)
