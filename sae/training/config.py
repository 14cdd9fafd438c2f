"""How to train: every setting with its default and its help, once; and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from sae.core.errors import UserError
from sae.core.files import FORMAT
from sae.training.engines.interface import BACKENDS

AUTO_EPOCHS = 10
AUTO_TOKENS = 500_000
"""Enough for what is common; more would learn a few thousand images by heart: of 3,600 drawings,
2,048 latents had a held-out FVU of .123 after 400,000 tokens, .137 after 600,000, .145 after
1,000,000."""
MAX_AUTO_EPOCHS = 500
MAX_DEAD_AFTER = 10_000_000
AUTO_BATCHES = (1024, 512, 256)
ENOUGH_STEPS = 600
AUTO_LR = 0.0
"""The learning rate that stands for: try some, and take what they speak for."""
N_RANDOM_PREFIXES = 10
WITH_K = ("topk", "signed_topk", "batch_topk")
"""The rules that keep a given number of latents."""
ACTIVATIONS = (*WITH_K, "jumprelu", "relu")
UNRECORDED = ("checkpoint_every",)
"""Settings that do not change what comes out: a training may go on with other ones."""

_VARIANT = "Variants"
_LOOP = "The loop"


def learning_rate(value: str | float) -> float:
    """What was typed, or stands in a file of settings: a number above 0, or auto."""
    if value == "auto":
        return AUTO_LR
    try:
        rate = float(value)
    except ValueError:
        raise UserError(f"lr is {value!r}; it must be a number such as 4e-3, or auto") from None
    _require(rate > 0, "lr", rate, "above 0, or auto")
    return rate


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. 0 means: decide by the data, as the field says."""

    format: int = FORMAT
    n_latents: Annotated[
        int, typer.Option(help="Rows of the dictionary; 0: expansion x width.", min=0)
    ] = 0
    expansion: Annotated[
        int,
        typer.Option(help="Latents per embedding dimension; a wider one splits concepts.", min=1),
    ] = 8
    k: Annotated[
        int,
        typer.Option(
            help="Latents kept per token; more reconstruct better and explain worse.", min=1
        ),
    ] = 32
    lr: Annotated[
        float,
        typer.Option(
            parser=learning_rate,
            metavar="RATE|auto",
            help="Peak learning rate of Adam. Matters most: 1e-3 recovers far less. auto tries "
            "some for a short while first.",
        ),
    ] = 4e-3
    batch_size: Annotated[
        int,
        typer.Option(
            help="Tokens per step; 0: 1,024, or down to 256 where the budget has fewer than 600 "
            "such steps.",
            min=0,
        ),
    ] = 0
    epochs: Annotated[
        int,
        typer.Option(help="Passes; 0: 10, or as many (to 500) as make 500,000 tokens.", min=0),
    ] = 0
    n_tokens: Annotated[int, typer.Option(help="Budget in tokens, in place of epochs.", min=0)] = 0
    alpha: Annotated[
        float, typer.Option(help="Weight of AuxK, which brings dead latents back.")
    ] = 1 / 32
    k_aux: Annotated[
        int,
        typer.Option(help="Dead latents that rebuild a token's residual; 0: width / 2.", min=0),
    ] = 0
    dead_after: Annotated[
        int,
        typer.Option(
            help="Silent tokens that make a latent dead; 0: a fortieth of the budget, but at most "
            "two passes and at most 10,000,000.",
            min=0,
        ),
    ] = 0
    warmup: Annotated[float, typer.Option(help="Share of the steps with rising lr.")] = 0.05
    decay: Annotated[float, typer.Option(help="Share of the steps, at the end, to lr 0.")] = 0.3
    holdout: Annotated[float, typer.Option(help="Share of images kept for `sae eval`.")] = 0.1
    seed: Annotated[int, typer.Option(help="Seed of weights and order.", min=0)] = 0

    activation: Annotated[
        str,
        typer.Option(
            help="Which latents a token keeps: topk, signed_topk (no ReLU), batch_topk, jumprelu "
            "(needs --l0), relu (needs --l1). The last two have no k.",
            rich_help_panel=_VARIANT,
        ),
    ] = "topk"
    k_start: Annotated[
        int,
        typer.Option(
            help="k at the first step, moving to k; 0: k.", min=0, rich_help_panel=_VARIANT
        ),
    ] = 0
    k_warmup: Annotated[
        float,
        typer.Option(
            help="Share of the steps in which k_start becomes k.", rich_help_panel=_VARIANT
        ),
    ] = 0.1
    matryoshka: Annotated[
        str,
        typer.Option(
            help="Nested dictionaries: prefix sizes (256,512,1024), random, or random:N for N "
            "prefixes a step.",
            rich_help_panel=_VARIANT,
        ),
    ] = ""
    calibrate: Annotated[
        bool,
        typer.Option(
            help="Set the threshold of batch_topk on half of the held-out images, which `sae eval` "
            "then leaves out.",
            rich_help_panel=_VARIANT,
        ),
    ] = True
    multi_k: Annotated[
        int,
        typer.Option(
            help="Also rebuild with so many times k latents, at weight 1/8; 0: off.",
            min=0,
            rich_help_panel=_VARIANT,
        ),
    ] = 0
    ghost: Annotated[
        str,
        typer.Option(
            help="Ghost gradients in place of AuxK: ttt or patchsae.", rich_help_panel=_VARIANT
        ),
    ] = ""
    ghost_weight: Annotated[
        float, typer.Option(help="Weight of ghost gradients.", rich_help_panel=_VARIANT)
    ] = 1.0
    l1: Annotated[
        float,
        typer.Option(help="Weight of a token's L1 norm (relu).", rich_help_panel=_VARIANT),
    ] = 0.0
    l0: Annotated[
        float, typer.Option(help="Weight of the L0 penalty (jumprelu).", rich_help_panel=_VARIANT)
    ] = 0.0
    dropout: Annotated[
        float,
        typer.Option(
            help="Share of the pre-activations left out of a step.", rich_help_panel=_VARIANT
        ),
    ] = 0.0
    init: Annotated[
        str,
        typer.Option(
            help="Dictionary to start from: tied (random directions) or data (data points).",
            rich_help_panel=_VARIANT,
        ),
    ] = "tied"
    backend: Annotated[
        str,
        typer.Option(help="auto, plain, sparse or triton: who computes.", rich_help_panel=_LOOP),
    ] = "auto"
    checkpoint_every: Annotated[
        float,
        typer.Option(
            help="Seconds between checkpoints; 0: none but at ctrl-C.", rich_help_panel=_LOOP
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_variant(self)

    @property
    def has_k(self) -> bool:
        """Whether the rule keeps a given number of latents."""
        return self.activation in WITH_K

    @property
    def n_random_prefixes(self) -> int:
        """Matryoshka prefixes that are drawn anew at each step; 0 where none are."""
        kind, _, n = self.matryoshka.partition(":")
        if kind != "random":
            return 0
        return _count(n, self.matryoshka) if n else N_RANDOM_PREFIXES

    def prefixes(self, n_latents: int) -> tuple[int, ...]:
        """Sizes of the fixed Matryoshka prefixes, the last one `n_latents`; () where none are."""
        if not self.matryoshka or self.n_random_prefixes:
            return ()
        sizes = sorted({_count(word, self.matryoshka) for word in self.matryoshka.split(",")})
        if sizes[-1] > n_latents:
            raise UserError(f"matryoshka has a prefix of {sizes[-1]}, but n_latents is {n_latents}")
        return tuple(sizes) if sizes[-1] == n_latents else (*sizes, n_latents)


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


def _check_ranges(config: TrainConfig) -> None:
    at_least_0: tuple[str, ...]
    at_least_0 = ("n_latents", "batch_size", "epochs", "n_tokens", "k_aux", "dead_after", "seed")
    at_least_0 += ("alpha", "k_start", "multi_k", "ghost_weight", "l1", "l0", "checkpoint_every")
    for name in ("expansion", "k"):
        _require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    for name in at_least_0:
        _require(getattr(config, name) >= 0, name, getattr(config, name), "at least 0")
    for name in ("holdout", "dropout"):
        value = getattr(config, name)
        _require(0 <= value < 1, name, value, "in [0, 1)")
    _require(config.lr >= 0, "lr", config.lr, "above 0, or 0 for auto")
    shares = config.warmup, config.decay, config.k_warmup
    _require(min(shares) >= 0, "warmup, decay or k_warmup", "negative", "at least 0")
    _require(config.k_warmup <= 1, "k_warmup", config.k_warmup, "at most 1")
    total = config.warmup + config.decay
    _require(total <= 1, "warmup + decay", total, "at most 1: they are shares of the steps")
    both = config.epochs and config.n_tokens
    rule = f"0 where epochs is given ({config.epochs}): give one of the two"
    _require(not both, "n_tokens", config.n_tokens, rule)


def _check_variant(config: TrainConfig) -> None:
    known: dict[str, tuple[str, ...]] = {
        "activation": ACTIVATIONS,
        "ghost": ("", "ttt", "patchsae"),
        "init": ("tied", "data"),
        "backend": BACKENDS,
    }
    for name, values in known.items():
        value = getattr(config, name)
        words = ", ".join(word or "empty" for word in values)
        _require(value in values, name, repr(value), f"one of {words}")
    if config.activation == "relu":
        _require(config.l1 > 0, "l1", config.l1, "above 0 with activation relu, e.g. 0.01")
    if config.activation == "jumprelu":
        _require(config.l0 > 0, "l0", config.l0, "above 0 with activation jumprelu, e.g. 0.001")
    else:
        _require(not config.l0, "l0", config.l0, "0 where activation is not jumprelu")
    if not config.has_k:
        for name in ("k_start", "multi_k"):
            value = getattr(config, name)
            _require(not value, name, value, f"0: {config.activation} has no k")
    if not config.n_random_prefixes and config.matryoshka:
        for word in config.matryoshka.split(","):
            _count(word, config.matryoshka)


def _count(word: str, matryoshka: str) -> int:
    if not word.strip().isdecimal() or int(word) < 1:
        raise UserError(
            f"matryoshka is {matryoshka!r}; it must be sizes such as 256,512,1024, or random, "
            "or random:10"
        )
    return int(word)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}; it must be {rule}")
