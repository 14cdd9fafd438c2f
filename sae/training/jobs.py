"""Settings and a store -> trained SAEs in their folders, several of them on one pass."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sae.core import interrupts
from sae.core.disk import require_room
from sae.core.distributed import LostProcess, Ranks
from sae.core.errors import Notice, UserError
from sae.core.files import append_jsonl, package_version, read_config, write_json
from sae.data.store import EmbeddingStore
from sae.evaluation.threshold import calibrate
from sae.model.init import start
from sae.model.sae import SAE, SAEConfig
from sae.training import checkpoint, folder, trackers
from sae.training.config import AUTO_LR, TrainConfig
from sae.training.context import TrainContext
from sae.training.engines.interface import Reduce
from sae.training.feed import batches
from sae.training.loop import NotFinite, Trainer, TrainRow, run
from sae.training.lr_search import LrChoice, choose
from sae.training.settings.schedule import resolve, tell_dense, tell_unfinished

VOTE_STEPS = 16
"""Steps between two questions of several processes whether to stop."""


class TrainResult(NamedTuple):
    """What training left behind."""

    out: Path
    model: SAE
    last: TrainRow
    trained: bool
    """False when a finished SAE with the same settings was there already."""
    n_before: int = 0
    """Steps that an earlier, stopped run had done."""
    choice: LrChoice | None = None
    """Of the learning rate, where that was left to the data."""
    engine: str = ""
    """Which one computed; "" where nothing was left to compute."""


@dataclass(frozen=True)
class Pass:
    """One pass over the data, which several SAEs may share."""

    store: EmbeddingStore
    rows: batches.Rows
    """The images to train on, ascending."""
    group: Ranks
    context: TrainContext

    def batches(
        self, config: TrainConfig, n_skipped: int = 0, n_in_all: int | None = None
    ) -> Generator[Tensor, None, None]:
        """This process's part of every batch after the first `n_skipped`; `config` is resolved."""
        return batches.batches(
            self.store,
            self.rows,
            config.batch_size,
            config.seed,
            self.group.device,
            n_skipped=n_skipped,
            part=self.group.part,
            buffer_tokens=config.buffer_tokens,
            n_in_all=n_in_all,
        )

    def cls_masks(self, config: TrainConfig, n_skipped: int = 0) -> Iterator[Tensor]:
        """Which tokens of each batch are CLS tokens."""
        order = self.rows, config.batch_size, config.seed, self.group.device
        return batches.cls_masks(
            self.store, *order, n_skipped, self.group.part, config.buffer_tokens
        )

    def reduce(self) -> Reduce | None:
        """What sums over all processes; None where there is one alone."""
        return self.group.sum if self.group.n > 1 else None


@dataclass(frozen=True)
class Lane:
    """One of the SAEs that are trained, and its folder."""

    out: Path
    config: TrainConfig
    """As it was given."""
    trainer: Trainer
    choice: LrChoice | None
    n_before: int


def already_trained(
    jobs: Mapping[Path, TrainConfig], store: EmbeddingStore, device: torch.device
) -> dict[Path, TrainResult | NotFinite]:
    """The jobs that are done. Raises `UserError` where one was done with other settings."""
    results: dict[Path, TrainResult | NotFinite] = {}
    for out, config in jobs.items():
        model = folder.load_finished(out, config, store, device)
        if model is not None:
            rows = folder.read_log(out)
            if not rows:
                raise UserError(f"{out / folder.LOG} is missing or empty; train with --overwrite")
            choice = _known_choice(out, config)
            results[out] = TrainResult(out, model, rows[-1], trained=False, choice=choice)
    return results


def lane_of(out: Path, config: TrainConfig, shared: Pass) -> Lane:
    """Ready for the next step: where a stopped training was, else at the start."""
    store, rows, group, context = shared.store, shared.rows, shared.group, shared.context
    found = None if context.overwrite else folder.load_unfinished(out, config, store, group.device)
    resolved = resolve(config, n_train=len(rows) * store.info.tokens_per_image)
    if resolved.batch_size < group.n:
        raise UserError(f"{group.n} processes cannot share batches of {resolved.batch_size} tokens")
    if found is None:
        x = batches.sample(store, rows, config.seed)
        model = start(sae_config(config, store), x, config.init, config.scale_input)
        model.to(group.device)
    else:
        model = found.model
    model.train()
    group.share(list(model.state_dict().values()))
    choice = _known_choice(out, config) if found else None
    if resolved.lr == AUTO_LR:
        again = partial(shared.batches, resolved)
        choice = choice or choose(model, resolved, again, shared.reduce(), context.progress)
        resolved = replace(resolved, lr=choice.lr)
    trainer = Trainer(model, resolved, reduce=shared.reduce())
    told = tell_unfinished(resolved, trainer.n_steps) + tell_dense(resolved, model.n_latents)
    for what in told if group.is_first else ():
        warnings.warn(f"{out}: {what}", Notice, stacklevel=2)
    if found is not None:
        found.restore(trainer)
    return Lane(out, config, trainer, choice, trainer.n_done)


def train_lanes(lanes: Sequence[Lane], shared: Pass) -> dict[Path, TrainResult | NotFinite]:
    """Take the steps that are left to each; only the first process writes and shows."""
    group = shared.group
    n_done = min(lane.n_before for lane in lanes)
    masks = None
    if any(lane.config.cls_weight != 1 for lane in lanes):
        masks = shared.cls_masks(lanes[0].trainer.config, n_done)
    group.do_first(lambda: _require_room(lanes))  # all have read what is there: now it may write
    trainers = [lane.trainer for lane in lanes]
    n_steps = max(trainer.n_steps for trainer in trainers)
    stream = shared.batches(lanes[0].trainer.config, n_done, n_steps)
    with ExitStack() as stack:
        stack.enter_context(closing(stream))  # a thread may be reading ahead
        if group.is_first:
            on_row = _log_of(lanes, shared.context.log, stack)
        stop = stack.enter_context(interrupts.catch_signals())
        keep = _keeper(lanes, group, stop)
        try:
            if group.is_first:
                rows_of = run(trainers, stream, on_row, shared.context.progress, keep, masks)
            else:
                rows_of = run(trainers, stream, after_step=keep, cls_masks=masks)
        except LostProcess:
            if group.is_first:  # a step changes nothing before all have summed its gradients
                _save(lanes)
            raise
    results = {lane.out: _result(lane, row) for lane, row in zip(lanes, rows_of, strict=True)}
    for lane in lanes:
        result = results[lane.out]
        if group.is_first and isinstance(result, TrainResult):
            if lane.config.calibrate and lane.config.activation == "batch_topk":
                try:
                    calibrate(result.model, shared.store, group.device)
                except UserError as error:  # held-out images that cannot be read cost no training
                    kept = f"{lane.out}: the threshold stays as training learned it: {error}"
                    warnings.warn(kept, Notice, stacklevel=2)
            folder.finish(result.out, result.model)
    group.wait()
    return results


def sae_config(config: TrainConfig, store: EmbeddingStore) -> SAEConfig:
    """Shape and provenance of the SAE that `config` asks for on `store`."""
    info = store.info
    return replace(
        sae_shape(config, info.d),
        clip=info.clip,
        layer=info.layer,
        tokens=info.tokens,
        rows=info.rows,
        store=info.identity,
        holdout=config.holdout,
        seed=config.seed,
        version=package_version(),
    )


def sae_shape(config: TrainConfig, d: int) -> SAEConfig:
    """Shape and rule of the SAE that `config` asks for on embeddings of width `d`."""
    n_latents = config.n_latents or config.expansion * d
    return SAEConfig(
        d=d,
        n_latents=n_latents,
        k=config.k if config.has_k else 0,
        activation=config.activation,
        prefixes=config.prefixes(n_latents),
    )


def _known_choice(out: Path, config: TrainConfig) -> LrChoice | None:
    return read_config(out / folder.LR, LrChoice) if config.lr == AUTO_LR else None


def _log_of(lanes: Sequence[Lane], log: str, stack: ExitStack) -> Callable[[int, TrainRow], None]:
    """Prepare the folders; what comes back writes a lane's row down, and tracks it."""
    tracks = []
    for lane in lanes:
        folder.prepare(lane.out, lane.config, lane.n_before)
        if lane.choice is not None:
            write_json(lane.out / folder.LR, lane.choice)
        tracking = trackers.tracking(log, lane.out, lane.config, lane.n_before)
        tracks.append(stack.enter_context(tracking))

    def on_row(number: int, row: TrainRow) -> None:
        append_jsonl(lanes[number].out / folder.LOG, [row._asdict()])
        tracks[number](row)

    return on_row


def _require_room(lanes: Sequence[Lane]) -> None:
    """Raise `UserError` where the disk cannot take the weights, and a checkpoint before them."""
    n = checkpoint.n_copies(lanes[0].config)  # Adam's moments are in a file of their own
    sizes = [sum(p.nbytes for p in lane.trainer.model.state_dict().values()) for lane in lanes]
    require_room(lanes[0].out, n * sum(sizes), largest=min(n, 2) * max(sizes))


def _keeper(lanes: Sequence[Lane], group: Ranks, stop: Callable[[], bool]) -> Callable[[], None]:
    """What happens between two steps: checkpoints when it is time, and when to stop is asked."""
    every = lanes[0].config.checkpoint_every
    due = time.monotonic() + every

    def keep() -> None:
        nonlocal due
        n_done = max(lane.trainer.n_done for lane in lanes)
        votes = group.n == 1 or n_done % VOTE_STEPS == 0
        if votes and group.any(stop()):
            if group.is_first:
                _save(lanes)
            raise KeyboardInterrupt
        if every and group.is_first and time.monotonic() >= due:
            _save(lanes)
            due = time.monotonic() + every

    return keep


def _save(lanes: Sequence[Lane]) -> None:
    """A checkpoint of every lane that came further than where it began."""
    for lane in lanes:
        # One that is not finite ends with the next row, which says so.
        with suppress(NotFinite):
            if lane.trainer.n_done > lane.n_before:
                checkpoint.save(lane.out, lane.trainer)


def _result(lane: Lane, row: TrainRow | NotFinite) -> TrainResult | NotFinite:
    if isinstance(row, TrainRow):
        model = lane.trainer.model.eval()
        engine = lane.trainer.engine.name
        return TrainResult(lane.out, model, row, True, lane.n_before, lane.choice, engine)
    good = checkpoint.last_good(lane.out)
    place = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
    return NotFinite(f"{row} (with --overwrite); {place}", row.step)
