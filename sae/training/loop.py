"""Batches -> a trained model: the training loop and its state. It knows no files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.core.progress import Bar
from sae.model.sae import SAE
from sae.training.config import TrainConfig
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import Engine, Objective, Reduce, StepResult
from sae.training.settings.schedule import count_steps, k_at, resolve, schedule, shares

__all__ = [
    "NotFinite",
    "TrainConfig",
    "TrainRow",
    "Trainer",
    "k_at",
    "objective",
    "resolve",
    "run",
    "schedule",
]

N_ROWS = 100
"""Lines of train.jsonl, about."""
SHOW_SECONDS = 0.25
"""Between two looks of the progress bar at the clock."""


class TrainRow(NamedTuple):
    """One line of train.jsonl: what a step showed on its batch."""

    step: int
    """Steps done, 1 .. n_steps."""
    tokens: int
    loss: float
    fvu: float
    aux: float
    """AuxK (or the ghost loss) before its weight; 0 while no latent is dead."""
    l0: float
    """Active latents per token."""
    dead: float
    """Share of the latents that were silent for `dead_after` tokens."""
    lr: float


class NotFinite(UserError):
    """A loss or a weight is no longer a number; `step` is the first one at which it showed."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Trainer:
    """The state of training: model, engine, and how long each latent has been silent."""

    def __init__(
        self,
        model: SAE,
        config: TrainConfig,
        engine: Engine | None = None,
        reduce: Reduce | None = None,
    ) -> None:
        """`config` is a resolved one. With `reduce`, every process holds its part of each batch."""
        known = config.n_tokens, config.batch_size, config.dead_after, config.lr
        if not all(known):
            raise ValueError("n_tokens, batch_size, dead_after and lr must be known: see resolve")
        if config.k_start > model.n_latents:
            raise UserError(f"k_start {config.k_start} is larger than n_latents {model.n_latents}")
        self.model = model
        self.config = config
        self.n_steps = count_steps(config)
        self.n_done = 0
        self.n_tokens = 0
        device = model.W_dec.device
        self.silent_for = torch.zeros(model.n_latents, dtype=torch.int64, device=device)
        self.n_fired = torch.zeros_like(self.silent_for)  # counted where dead_below needs it
        self.engine = engine or engine_for(
            model, objective(config, model), config.backend, config.seed, reduce, config
        )
        self._is_alone = reduce is None
        self._lr = 0.0
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)  # 0: none so far

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        warmup, decay, _ = shares(self.config, self.n_steps)
        return self.config.lr * schedule(self.n_done, self.n_steps, warmup, decay)

    @property
    def k(self) -> int:
        """Latents that a token keeps in the next step."""
        k_warmup = shares(self.config, self.n_steps).k_warmup
        k_start, k = self.config.k_start, self.model.config.k
        return k_at(self.n_done, self.n_steps, k_start, k, k_warmup)

    @property
    def dead(self) -> Tensor:
        """Mask (n_latents,) of the latents that were silent for too long, or fired too seldom."""
        if self.config.dead_below:
            return self.n_fired / max(1, self.n_tokens) < self.config.dead_below
        return self.silent_for >= self.config.dead_after

    def step(self, x: Tensor, is_cls: Tensor | None = None) -> StepResult:
        """Learn from one batch of raw embeddings (n, d). Waits for nothing on the device.

        `is_cls` (n,) is a mask of the CLS tokens, which `cls_weight` needs.
        """
        self._lr = self.lr
        n_tokens = len(x) if self._is_alone else self.config.batch_size
        judge = partial(self._is_rare, n_tokens=self.n_tokens + n_tokens)
        result = self.engine.step(
            self.model.centre(x),
            k=self.k,
            lr=self._lr,
            dead=self.dead,
            judge=judge if self.config.dead_below else None,
            is_cls=is_cls,
        )
        if result.n_positive is not None:
            self.n_fired.add_(result.n_positive.long())
        self.n_done += 1
        self.n_tokens += n_tokens
        self.silent_for.add_(n_tokens).masked_fill_(result.fired, 0)
        is_first_bad = (self._bad_step == 0) & ~result.loss.isfinite()
        self._bad_step.masked_fill_(is_first_bad, self.n_done)
        return result

    def row(self, result: StepResult) -> TrainRow:
        """Figures of the step just done. Raises `NotFinite` when a loss so far was not finite."""
        figures = [result.loss, result.fvu, result.aux, result.l0, self.dead.float().mean()]
        values = torch.stack([value.double() for value in [*figures, self._bad_step]]).tolist()
        loss, fvu, aux, l0, dead, bad_step = values
        if bad_step:
            raise self._not_finite(f"the loss is {loss}", int(bad_step))
        return TrainRow(self.n_done, self.n_tokens, loss, fvu, aux, l0, dead, self._lr)

    def require_finite(self) -> None:
        """Raise `NotFinite` when a loss so far, or a parameter now, is not finite."""
        if bad_step := int(self._bad_step):
            raise self._not_finite("the loss is not finite", bad_step)
        for name, value in self.model.named_parameters():
            if not bool(value.isfinite().all()):
                raise self._not_finite(f"{name} is not finite", self.n_done)

    def state(self) -> dict[str, Tensor]:
        """All that must be kept to go on, but for the model's own weights."""
        state = {f"engine.{name}": value for name, value in self.engine.state().items()}
        if self.config.dead_below:
            state["n_fired"] = self.n_fired
        counts = torch.tensor([self.n_done, self.n_tokens])
        return state | {"silent_for": self.silent_for, "counts": counts}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; the model must have the weights of that moment."""
        self.n_done, self.n_tokens = state["counts"].tolist()
        self.silent_for.copy_(state["silent_for"])
        if self.config.dead_below:
            self.n_fired.copy_(state["n_fired"])
        of_engine = {name: value for name, value in state.items() if name.startswith("engine.")}
        self.engine.restore({name.removeprefix("engine."): v for name, v in of_engine.items()})

    def _is_rare(self, n_positive: Tensor, n_tokens: int) -> Tensor:
        """The dead (n_latents,) after `n_tokens`, in the last batch of which so many fired."""
        return (self.n_fired + n_positive.long()) / n_tokens < self.config.dead_below

    def _not_finite(self, what: str, step: int) -> NotFinite:
        lr = self.config.lr
        return NotFinite(
            f"{what} at step {step} of {self.n_steps} with lr {lr}; "
            f"train again with a lower one, e.g. lr {lr / 4:g}",
            step,
        )


def run(
    trainers: Sequence[Trainer],
    batches: Iterator[Tensor],
    on_row: Callable[[int, TrainRow], None] = lambda number, row: None,
    progress: Bar | None = None,
    after_step: Callable[[], None] = lambda: None,
    cls_masks: Iterator[Tensor] | None = None,
) -> list[TrainRow | NotFinite]:
    """Take the steps that are left to trainers of as many steps; return the last row of each.

    Every batch (batch_size, d) of raw embeddings is given to each of them. `batches` begin with the
    one that the trainer with the fewest steps done needs next; the others join when theirs comes.
    One whose loss is not finite stops there, and gives the error instead of its last row. `on_row`
    is told the number of the trainer; `after_step` is called between two steps, and may raise to
    stop. `cls_masks` (batch_size,) go with the batches, where a `cls_weight` needs them.
    """
    n_steps = trainers[0].n_steps
    if any(trainer.n_steps != n_steps for trainer in trainers):
        raise ValueError("trainers that share batches must take as many steps")
    every = max(1, n_steps // N_ROWS)
    n_before = min(trainer.n_done for trainer in trainers)
    shown = _Shown(trainers, n_before, progress)
    rows: dict[int, TrainRow | NotFinite] = {}
    for n_done, x in enumerate(islice(batches, n_steps - n_before), start=n_before + 1):
        is_last, is_cls = n_done == n_steps, next(cls_masks) if cls_masks else None
        for number, trainer in enumerate(trainers):
            if trainer.n_done >= n_done or isinstance(rows.get(number), NotFinite):
                continue
            result = trainer.step(x, is_cls)
            if n_done % every == 0 or is_last:
                rows[number] = _row(trainer, result)
                if isinstance(row := rows[number], TrainRow):
                    on_row(number, row)
        shown.update(n_done, rows, is_last)
        if not is_last:
            after_step()
    if len(rows) < len(trainers):
        raise ValueError("no batch to train on")
    return [rows[number] for number in range(len(trainers))]


def _row(trainer: Trainer, result: StepResult) -> TrainRow | NotFinite:
    try:
        return trainer.row(result)
    except NotFinite as error:
        return error


def objective(config: TrainConfig, model: SAE) -> Objective:
    """What `config` asks the engine to minimise."""
    return Objective(
        loss=cast("Literal['fvu', 'mse', 'mse_over_norm']", config.loss),
        cls_weight=config.cls_weight,
        pre_bias=config.pre_bias,
        alpha=config.alpha,
        k_aux=config.k_aux or max(1, model.d // 2),
        auxk=cast("Literal['residual', 'total']", config.auxk),
        dead_below=config.dead_below,
        ghost=cast("Literal['', 'ttt', 'patchsae']", config.ghost),
        ghost_weight=config.ghost_weight,
        multi_k=config.multi_k,
        l1=config.l1,
        l0=config.l0,
        prefixes=config.prefixes(model.n_latents),
        n_random_prefixes=config.n_random_prefixes,
        dropout=config.dropout,
    )


class _Shown:
    """The progress bar: the newest row of the best SAE, and the speed of this process."""

    def __init__(self, trainers: Sequence[Trainer], n_before: int, progress: Bar | None) -> None:
        self._progress = progress
        self._n_steps, self._n_before = trainers[0].n_steps, n_before
        self._batch_size = trainers[0].config.batch_size
        self._started = self._last = time.monotonic()
        if progress is not None:
            progress(n_before, self._n_steps)

    def update(self, n_done: int, rows: Mapping[int, TrainRow | NotFinite], is_last: bool) -> None:
        now = time.monotonic()
        if self._progress is None or (now - self._last < SHOW_SECONDS and not is_last):
            return
        self._last = now
        n_tokens = (n_done - self._n_before) * self._batch_size
        text = f"{n_tokens / max(now - self._started, 1e-6):,.0f} rows/s"
        fine = [row for row in rows.values() if isinstance(row, TrainRow)]
        if fine:
            row = min(fine, key=lambda row: row.fvu)
            text = f"FVU {row.fvu:.3f} L0 {row.l0:.1f} dead {row.dead:.1%} {text}"
        self._progress(n_done, self._n_steps, text)
