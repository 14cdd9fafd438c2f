"""`--lr auto`: short trials of several learning rates, and the rate that they speak for.

The trials are SAEs of the same shape and start that see the same batches, each with a schedule of
its own that ends at 0. What is best in a short training is too high for a long one, so the rate is
brought down by a power of how much longer it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.core.files import FORMAT
from sae.core.progress import Bar
from sae.model.sae import SAE
from sae.training.config import TrainConfig
from sae.training.engines.interface import Reduce
from sae.training.loop import Trainer

TRIAL_SHARE = 1 / 20
"""Of the training's steps: the length of a trial, within the bounds below."""
MIN_STEPS, MAX_STEPS = 60, 500
LAST = 1 / 10
"""Share of a trial's steps, its last ones, whose mean loss is compared."""
N_FURTHER = 4
"""Rates that are tried, at most, beyond the first three: as long as the best is at an edge."""
POWER = 0.3
"""A training of ten times as many steps wants half the rate.

On planted data (512 wide, batches of 512) the rate with the lowest FVU was 7.5e-3 for 60 steps,
4.8e-3 for 200, 3e-3 for 600, 2e-3 for 2,000: a power of .37. A somewhat higher rate costs next to
no FVU and finds rare directions sooner (600 steps: .072 and 88% at 3e-3, .075 and 94% at 4e-3).
"""


@dataclass(frozen=True)
class LrChoice:
    """lr.json: the learning rate that `--lr auto` chose, and why."""

    lr: float
    best: float
    """The rate that was best in the trials, between those that were tried."""
    n_steps: int
    """Of the training."""
    n_trial_steps: int
    n_trial_tokens: int
    lrs: list[float]
    """What was tried, rising."""
    losses: list[float | None]
    """Mean loss of each over the last tenth of its trial, without AuxK; None: not finite."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise UserError(f"lr is {self.lr}; it must be above 0")

    def why(self) -> str:
        """One sentence for the user."""
        tried = ", ".join(
            f"{lr:.3g} ({'not finite' if loss is None else f'{loss:.3f}'})"
            for lr, loss in zip(self.lrs, self.losses, strict=True)
        )
        return (
            f"lr {self.lr:.3g}: trials of {self.n_trial_tokens:,} tokens had the loss {tried}; "
            f"best {self.best:.3g}, brought down for {self.n_steps / self.n_trial_steps:.3g} times "
            "as many steps"
        )


def choose(
    model: SAE,
    config: TrainConfig,
    batches: Callable[[], Generator[Tensor, None, None]],
    reduce: Reduce | None = None,
    progress: Bar | None = None,
) -> LrChoice:
    """The learning rate for a training of `model`, which is untrained and stays so.

    `config` is a resolved one; `batches` begins the training's own stream anew. With `reduce`
    every process chooses the same. Raises `UserError` when no rate gives a finite loss.
    """
    n_steps = -(-config.n_tokens // config.batch_size)
    n_trial = min(n_steps, max(MIN_STEPS, min(MAX_STEPS, round(TRIAL_SHARE * n_steps))))
    n_tokens = n_trial * config.batch_size
    dead_after = min(config.dead_after, max(1, n_tokens // 10))
    shorter = replace(
        config,
        n_tokens=n_tokens,
        dead_after=dead_after,
        warmup_steps=-(-config.warmup_steps * n_trial // n_steps),
        k_warmup_steps=-(-config.k_warmup_steps * n_trial // n_steps),
    )
    trial = _Trial(model, shorter, batches, n_trial, reduce, progress)
    middle = first_guess(model.d, config.batch_size)
    losses = trial.losses([middle / 2, middle, middle * 2])
    for _ in range(N_FURTHER):
        further = _beyond(losses)
        if further is None:
            break
        losses |= trial.losses([further])
    if not any(map(math.isfinite, losses.values())):
        raise UserError(
            f"no learning rate from {min(losses):.3g} to {max(losses):.3g} gives a finite loss; "
            "give --lr yourself, or look at the embeddings"
        )
    best = best_between(losses)
    lrs = sorted(losses)
    return LrChoice(
        lr=_rounded(best * (n_trial / n_steps) ** POWER),
        best=_rounded(best),
        n_steps=n_steps,
        n_trial_steps=n_trial,
        n_trial_tokens=n_tokens,
        lrs=lrs,
        losses=[losses[lr] if math.isfinite(losses[lr]) else None for lr in lrs],
    )


def first_guess(d: int, batch_size: int) -> float:
    """A rate near the best of a short training: Adam turns rows of width d by lr sqrt(d) a step."""
    return _rounded(8e-3 * math.sqrt(512 / d) * math.sqrt(min(batch_size, 2048) / 512))


def best_between(losses: Mapping[float, float]) -> float:
    """Where the parabola through the best rate and its neighbours, over log lr, is least."""
    lrs = sorted(losses)
    at = min(range(len(lrs)), key=lambda number: losses[lrs[number]])
    near = lrs[max(0, at - 1) : at + 2]
    if len(near) < 3 or not all(math.isfinite(losses[lr]) for lr in near):
        return lrs[at]
    left, middle, right = (losses[lr] for lr in near)
    bend = left - 2 * middle + right
    shift = (left - right) / (2 * bend) if bend > 0 else 0.0
    return lrs[at] * 2**shift


def _beyond(losses: Mapping[float, float]) -> float | None:
    """The next rate to try: beyond the edge that is best so far; None where none is."""
    lrs = sorted(losses)
    best = min(lrs, key=lambda lr: losses[lr])
    if best == lrs[0]:
        return best / 2
    return best * 2 if best == lrs[-1] else None


@dataclass(frozen=True)
class _Trial:
    """What the trials have in common."""

    model: SAE
    config: TrainConfig
    """Of a training as long as a trial."""
    batches: Callable[[], Generator[Tensor, None, None]]
    n_steps: int
    reduce: Reduce | None
    progress: Bar | None

    def losses(self, lrs: Sequence[float]) -> dict[float, float]:
        """Mean loss at the end of a trial of each rate; infinite where it is no number."""
        trainers = [self._trainer(lr) for lr in lrs]
        weight = self.config.ghost_weight if self.config.ghost else self.config.alpha
        n_last = max(1, round(LAST * self.n_steps))
        sums = torch.zeros(len(lrs), device=self.model.W_dec.device)
        text = f"trying lr {', '.join(f'{lr:.3g}' for lr in lrs)}"
        with closing(self.batches()) as batches:  # a thread may be reading ahead
            for step, x in enumerate(islice(batches, self.n_steps), start=1):
                results = [trainer.step(x) for trainer in trainers]
                if step > self.n_steps - n_last:
                    sums += torch.stack([result.loss - weight * result.aux for result in results])
                if self.progress is not None:
                    self.progress(step, self.n_steps, text)
        means = (sums / n_last).tolist()
        return {
            lr: mean if math.isfinite(mean) else math.inf
            for lr, mean in zip(lrs, means, strict=True)
        }

    def _trainer(self, lr: float) -> Trainer:
        model = copy.deepcopy(self.model)
        return Trainer(model, replace(self.config, lr=lr), reduce=self.reduce)


def _rounded(lr: float) -> float:
    """To three digits: more would pretend to a knowledge that trials cannot give."""
    return float(f"{lr:.3g}")
