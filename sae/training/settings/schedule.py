"""Settings and a number of tokens -> how long, in what batches, with which rate and k a step."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from sae.evaluation.reconstruction import DENSE_RATE
from sae.training.config import TrainConfig

AUTO_EPOCHS = 10
AUTO_TOKENS = 500_000
"""Enough for what is common; more would learn a few thousand images by heart: of 3,600 drawings,
2,048 latents had a held-out FVU of .123 after 400,000 tokens, .137 after 600,000, .145 after
1,000,000."""
MAX_AUTO_EPOCHS = 500
MAX_DEAD_AFTER = 10_000_000
AUTO_BATCHES = (1024, 512, 256)
ENOUGH_STEPS = 600


def resolve(config: TrainConfig, n_train: int) -> TrainConfig:
    """Fill in what `n_train` tokens decide: `n_tokens`, `dead_after` and `batch_size`."""
    enough = min(AUTO_TOKENS, MAX_AUTO_EPOCHS * n_train)
    n_tokens = config.n_tokens or config.epochs * n_train or max(AUTO_EPOCHS * n_train, enough)
    batch_size = min(config.batch_size or _batch_size(n_tokens), max(1, n_train))
    return replace(
        config,
        epochs=0,
        n_tokens=n_tokens,
        dead_after=config.dead_after or _dead_after(n_tokens, batch_size, n_train),
        batch_size=batch_size,
    )


def count_steps(config: TrainConfig) -> int:
    """Of a training, by its resolved settings."""
    return -(-config.n_tokens // config.batch_size)


def schedule(step: int, n_steps: int, warmup: float, decay: float) -> float:
    """Share of the peak learning rate: up over `warmup` of the steps, down to 0 over `decay`."""
    up = (step + 1) / max(1.0, warmup * n_steps)
    down = (n_steps - step) / max(1.0, decay * n_steps)
    return min(1.0, up, down)


def k_at(step: int, n_steps: int, k_start: int, k: int, k_warmup: float) -> int:
    """Latents that a token keeps at `step`: in a straight line from `k_start` (0: off) to `k`."""
    share = step / (k_warmup * n_steps) if k_warmup else 1.0
    if not k_start or share >= 1:
        return k
    return round(k_start + share * (k - k_start))


class Shares(NamedTuple):
    """How long things last, as shares of all steps."""

    warmup: float
    decay: float
    k_warmup: float


def shares(config: TrainConfig, n_steps: int) -> Shares:
    """Those of `config`; what is told in steps may take longer than the training."""
    warmup, decay, k_warmup = config.warmup, config.decay, config.k_warmup
    if config.warmup_steps:
        warmup = config.warmup_steps / n_steps
        decay = min(decay, max(0.0, 1 - warmup))
    return Shares(warmup, decay, config.k_warmup_steps / n_steps or k_warmup)


def tell_unfinished(config: TrainConfig, n_steps: int) -> list[str]:
    """What the training is too short for, in words."""
    found = []
    if config.warmup_steps > n_steps:
        found.append(f"lr still rises at the last of {n_steps:,} steps (warmup_steps")
        found[-1] += f" {config.warmup_steps:,})"
    if config.k_start and config.k_warmup_steps > n_steps:
        k = k_at(n_steps - 1, n_steps, config.k_start, config.k, config.k_warmup_steps / n_steps)
        found.append(f"k is still {k}, not {config.k}, at the last of {n_steps:,} steps")
        found[-1] += f" (k_warmup_steps {config.k_warmup_steps:,})"
    return found


def tell_dense(config: TrainConfig, n_latents: int) -> list[str]:
    """Whether latents will be active on too many tokens to mean one thing, in words."""
    share = config.k / n_latents if config.has_k else 0.0
    if share <= DENSE_RATE:
        return []
    return [
        f"k {config.k} of {n_latents:,} latents: on average each is active on {share:.0%} of the "
        f"tokens, and `interp` names none that is on more than {DENSE_RATE:.0%}; take a smaller "
        "--k or more latents"
    ]


def _batch_size(n_tokens: int) -> int:
    """The largest that leaves enough steps, else the smallest."""
    # 307,200 planted tokens: 300 steps found 82% of the directions, 600 steps 94%, at lr 4e-3.
    enough = [size for size in AUTO_BATCHES if n_tokens >= ENOUGH_STEPS * size]
    return enough[0] if enough else AUTO_BATCHES[-1]


def _dead_after(n_tokens: int, batch_size: int, n_train: int) -> int:
    """A fortieth of the budget, at least ten steps; two passes and `MAX_DEAD_AFTER` at most."""
    # Soon enough that AuxK has time to bring them back: 307,200 planted tokens left 12% of 4,096
    # latents silent on new tokens after a tenth of the budget, 3% after a thirtieth, 1% after a
    # sixtieth, at a FVU of .076, .073 and .072. What was silent for two passes fires nowhere.
    enough = max(n_tokens // 40, 10 * batch_size)
    return max(1, min(2 * n_train, enough, MAX_DEAD_AFTER))
