"""A store and settings -> an SAE folder; what was stopped goes on where it was.

Several SAEs can be trained on one pass over the data; one alone is a case of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch

from sae.core import distributed
from sae.core.errors import UserError
from sae.core.lock import LOCK, hold
from sae.core.output import require_own
from sae.data.split import holdout_rows
from sae.data.store import EmbeddingStore
from sae.model.init import start
from sae.training import folder, trackers
from sae.training.config import TrainConfig
from sae.training.context import TrainContext
from sae.training.jobs import Pass, TrainResult, already_trained, lane_of, sae_config, train_lanes
from sae.training.loop import NotFinite, TrainRow

__all__ = [
    "TrainConfig",
    "TrainContext",
    "TrainResult",
    "TrainRow",
    "sae_config",
    "start",
    "train",
    "train_all",
]

ORDER = ("seed", "batch_size", "epochs", "n_tokens", "holdout", "buffer_tokens")
"""The settings that decide which tokens come when: SAEs that share a pass share them."""


def train(
    store: EmbeddingStore,
    out: Path,
    config: TrainConfig | None = None,
    context: TrainContext = TrainContext(),
) -> TrainResult:
    """Train an SAE on the images of `store` that are not held out, and write it to `out`.

    `sae.training.folder` says what `out` gets. A stopped training goes on from its last checkpoint;
    a finished SAE of the same settings and store is left as it is; raises `UserError` when either
    has other settings, unless `context.overwrite`, and when the loss is not finite. The first
    SIGINT saves a checkpoint and raises `KeyboardInterrupt`. Under `torchrun` each process trains
    on its part of every batch.
    """
    [result] = train_all(store, {Path(out): config or TrainConfig()}, context)
    if isinstance(result, NotFinite):
        raise result
    return result


def train_all(
    store: EmbeddingStore,
    jobs: Mapping[Path, TrainConfig],
    context: TrainContext = TrainContext(),
) -> list[TrainResult | NotFinite]:
    """Train an SAE in each folder of `jobs`, on one pass over the data, as `train` would each.

    The settings must agree in those of `ORDER`. An SAE whose loss is not finite stops alone, and
    gives the error in place of its result.
    """
    if len({tuple(getattr(config, name) for name in ORDER) for config in jobs.values()}) != 1:
        raise ValueError(f"SAEs on one pass must have the same {', '.join(ORDER)}")
    for out in jobs:
        require_own(out, "SAE", folder.is_own(out))
    holdout = next(iter(jobs.values())).holdout
    rows = np.flatnonzero(~holdout_rows(store.images, holdout))
    if len(rows) == 0:
        raise UserError(f"{store.path} has no image to train on with holdout {holdout}")
    trackers.require(context.log)
    with distributed.join_processes(torch.device(context.device)) as group, ExitStack() as held:
        if group.n > 1 and store.info.on_the_fly:
            raise UserError(
                f"{group.n} processes would each put all images through CLIP; `sae embed` them "
                "first, and train on the store"
            )
        asked: Mapping[Path, TrainConfig] = {} if context.overwrite else jobs
        results = already_trained(asked, store, group.device)
        if len(results) < len(jobs):
            group.do_first(lambda: _hold(jobs, held))
            # Another process may have just finished one.
            results = already_trained(asked, store, group.device)
        shared = Pass(store, rows, group, context)
        left = [(out, config) for out, config in jobs.items() if out not in results]
        lanes = [lane_of(out, config, shared) for out, config in left]
        if lanes:
            results |= train_lanes(lanes, shared)
    return [results[out] for out in jobs]


def _hold(jobs: Iterable[Path], held: ExitStack) -> None:
    for out in jobs:
        held.enter_context(closing(hold(out / LOCK)))
