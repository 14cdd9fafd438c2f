"""The training loop and its state: batches in, a trained model out. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from sae.errors import UserError
from sae.files import FORMAT
from sae.losses import auxk_loss, fvu
from sae.model import SAE, Codes
from sae.progress import Progress

N_ROWS = 100
"""Lines of train.jsonl, about."""
AUTO_EPOCHS = 10
AUTO_TOKENS = 1_000_000
MAX_AUTO_EPOCHS = 500
MAX_DEAD_AFTER = 10_000_000


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. 0 means: decide by the data, as the field says."""

    format: int = FORMAT
    n_latents: int = 0
    """Rows of the dictionary; 0 = `expansion` times the embeddings' width."""
    expansion: int = 8
    """Used where `n_latents` is 0. A dictionary wider than what the data hold splits concepts."""
    k: int = 32
    """Latents kept per token. Larger k reconstructs better and explains worse."""
    lr: float = 4e-3
    """Peak learning rate of Adam. Matters most: 1e-3 recovers far less in the same budget."""
    batch_size: int = 1024
    """Tokens per step; all of them where there are fewer."""
    epochs: int = 0
    """Passes over the training part; 0 = 10, or as many (500 at most) as make 1,000,000 tokens."""
    n_tokens: int = 0
    """Training budget in tokens, in place of `epochs`."""
    alpha: float = 1 / 32
    """Weight of AuxK, which brings dead latents back."""
    k_aux: int = 0
    """Dead latents that rebuild a token's residual; 0 = half the embeddings' width."""
    dead_after: int = 0
    """Tokens without an activation after which a latent is dead; 0 = two passes, but at most a
    tenth of the budget and at most 10,000,000."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    decay: float = 0.3
    """Share of the steps, at the end, in which it falls to 0."""
    holdout: float = 0.1
    """Share of the images kept out of training, for `sae eval`."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("expansion", "k", "batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("n_latents", "epochs", "n_tokens", "k_aux", "dead_after", "seed", "alpha"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(0 <= self.holdout < 1, "holdout", self.holdout, "in [0, 1)")
        _require(min(self.warmup, self.decay) >= 0, "warmup or decay", "negative", "at least 0")
        _require(
            self.warmup + self.decay <= 1,
            "warmup + decay",
            self.warmup + self.decay,
            "at most 1: they are shares of the steps",
        )
        _require(
            not (self.epochs and self.n_tokens),
            "n_tokens",
            self.n_tokens,
            f"0 where epochs is given ({self.epochs}): give one of the two",
        )


def resolve(config: TrainConfig, n_train: int) -> TrainConfig:
    """Fill in what `n_train` tokens decide: `n_tokens`, `dead_after` and `batch_size`."""
    enough = min(AUTO_TOKENS, MAX_AUTO_EPOCHS * n_train)
    n_tokens = config.n_tokens or config.epochs * n_train or max(AUTO_EPOCHS * n_train, enough)
    # What was silent for two passes fires nowhere: to wait longer left 8% dead on 3,600 images
    # seen 140 times, instead of 1%.
    dead_after = config.dead_after or min(2 * n_train, n_tokens // 10, MAX_DEAD_AFTER)
    return replace(
        config,
        epochs=0,
        n_tokens=n_tokens,
        dead_after=max(1, dead_after),
        batch_size=min(config.batch_size, max(1, n_train)),
    )


class TrainRow(NamedTuple):
    """One line of train.jsonl: what a step showed on its batch."""

    step: int
    """Steps done, 1 .. n_steps."""
    tokens: int
    loss: float
    fvu: float
    aux: float
    """AuxK before its weight; 0 while no latent is dead."""
    l0: float
    """Latents above 0 per token."""
    dead: float
    """Share of the latents that were silent for `dead_after` tokens."""
    lr: float


def fit(
    model: SAE,
    batches: Iterator[Tensor],
    config: TrainConfig,
    on_row: Callable[[TrainRow], None] = lambda row: None,
    progress: Progress | None = None,
) -> TrainRow:
    """Train `model` in place on batches (batch_size, d) of raw embeddings; return the last row.

    `config` is a resolved one. Raises `UserError` when the loss is not finite.
    """
    trainer = Trainer(model, config)
    every = max(1, trainer.n_steps // N_ROWS)
    row = None
    for x in islice(batches, trainer.n_steps):
        result = trainer.step(x)
        if trainer.n_done % every and trainer.n_done < trainer.n_steps:
            continue
        row = trainer.row(result)
        on_row(row)
        if progress is not None:
            progress(row.step, trainer.n_steps)
    if row is None:
        raise ValueError("no batch to train on")
    return row


class StepResult(NamedTuple):
    """What one step computed, before anything waits for it."""

    loss: Tensor
    fvu: Tensor
    aux: Tensor
    codes: Codes


class Trainer:
    """The state of training: model, Adam's moments, and how long each latent has been silent."""

    def __init__(self, model: SAE, config: TrainConfig) -> None:
        if not (config.n_tokens and config.dead_after):
            raise ValueError("n_tokens and dead_after must be known: call resolve first")
        self.model = model
        self.config = config
        self.n_steps = -(-config.n_tokens // config.batch_size)
        self.n_done = 0
        self.n_tokens = 0
        self.k_aux = config.k_aux or max(1, model.d // 2)
        self.silent_for = torch.zeros(model.n_latents, dtype=torch.int64, device=model.W_dec.device)
        # Gradients of rare latents are small: an eps of 1e-8 would slow them down.
        self.adam = torch.optim.Adam(model.parameters(), lr=config.lr, eps=6.25e-10, fused=True)

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.config.lr * schedule(
            self.n_done, self.n_steps, self.config.warmup, self.config.decay
        )

    @property
    def dead(self) -> Tensor:
        """Mask (n_latents,) of the latents that were silent for too long."""
        return self.silent_for >= self.config.dead_after

    def step(self, x: Tensor) -> StepResult:
        """Learn from one batch of raw embeddings (n, d)."""
        result = self._losses(self.model.centre(x))
        self.adam.zero_grad()
        result.loss.backward()  # type: ignore[no-untyped-call]
        self.model.project_decoder_gradient()
        self.adam.param_groups[0]["lr"] = self.lr
        self.adam.step()
        self.model.normalise_decoder()

        self.n_done += 1
        self.n_tokens += len(x)
        self.silent_for += len(x)
        self.silent_for[result.codes.latents[result.codes.acts > 0]] = 0
        return result

    def row(self, result: StepResult) -> TrainRow:
        """Figures of the step just done. Raises `UserError` when its loss is not finite."""
        row = TrainRow(
            step=self.n_done,
            tokens=self.n_tokens,
            loss=result.loss.item(),
            fvu=result.fvu.item(),
            aux=result.aux.item(),
            l0=(result.codes.acts > 0).sum(1).float().mean().item(),
            dead=self.dead.float().mean().item(),
            lr=self.adam.param_groups[0]["lr"],
        )
        if not math.isfinite(row.loss):
            raise UserError(
                f"the loss is {row.loss} at step {row.step} of {self.n_steps} with "
                f"lr {self.config.lr}; train again with a lower one, e.g. lr {self.config.lr / 4:g}"
            )
        return row

    def _losses(self, x: Tensor) -> StepResult:
        pre = self.model.pre_of_centred(x)  # (n, n_latents)
        codes = self.model.sparsity.keep(pre)
        x_hat = self.model.decode_centred(codes)
        unexplained = fvu(x, x_hat)
        aux = auxk_loss(x - x_hat, pre, self.model.W_dec, self.dead, self.k_aux)
        return StepResult(unexplained + self.config.alpha * aux, unexplained, aux, codes)


def schedule(step: int, n_steps: int, warmup: float, decay: float) -> float:
    """Share of the peak learning rate: up over `warmup` of the steps, down to 0 over `decay`."""
    up = (step + 1) / max(1.0, warmup * n_steps)
    down = (n_steps - step) / max(1.0, decay * n_steps)
    return min(1.0, up, down)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}; it must be {rule}")
