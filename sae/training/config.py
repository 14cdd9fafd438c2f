"""How to train: every setting with its default and its help, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from sae.core.errors import UserError
from sae.core.files import FORMAT
from sae.training.engines.interface import BACKENDS
from sae.training.engines.update import DECODERS, OF_OTHERS, Update

AUTO_LR = 0.0
"""The learning rate that stands for: try some, and take what they speak for."""
N_RANDOM_PREFIXES = 10
WITH_K = ("topk", "signed_topk", "batch_topk")
"""The rules that keep a given number of latents."""
ACTIVATIONS = (*WITH_K, "jumprelu", "relu")
LOSSES = ("fvu", "mse", "mse_over_norm")
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
class TrainConfig(Update):
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
            help="Dictionary to start from: tied (random directions), data (data points), or as "
            "ttt, sketch, patchsae or sparsify have it.",
            rich_help_panel=_VARIANT,
        ),
    ] = "tied"
    loss: Annotated[
        str,
        typer.Option(
            help="What is not rebuilt: fvu (over the data's variance), mse (mean square of a "
            "number), mse_over_norm (that over the token's norm). l1, l0 and ghost_weight are "
            "weights beside it.",
            rich_help_panel=OF_OTHERS,
        ),
    ] = "fvu"
    cls_weight: Annotated[
        float,
        typer.Option(
            help="Weight of the CLS token's error, in a store of all tokens.",
            rich_help_panel=OF_OTHERS,
        ),
    ] = 1.0
    auxk: Annotated[
        str,
        typer.Option(
            help="AuxK over the variance of the residual, or total: of the data, times n_dead / "
            "k_aux where fewer are dead.",
            rich_help_panel=OF_OTHERS,
        ),
    ] = "residual"
    dead_below: Annotated[
        float,
        typer.Option(
            help="A latent is dead while it has fired on less than this share of all tokens so "
            "far; 0: by --dead-after.",
            rich_help_panel=OF_OTHERS,
        ),
    ] = 0.0
    pre_bias: Annotated[
        bool,
        typer.Option(
            help="Whether the encoder takes b_dec out of its input.", rich_help_panel=OF_OTHERS
        ),
    ] = True
    scale_input: Annotated[
        bool,
        typer.Option(
            help="Whether embeddings are centred and brought to mean square 1 first.",
            rich_help_panel=OF_OTHERS,
        ),
    ] = True
    warmup_steps: Annotated[
        int,
        typer.Option(
            help="Steps with rising lr, in place of the share --warmup; --decay is then cut to "
            "what follows.",
            min=0,
            rich_help_panel=OF_OTHERS,
        ),
    ] = 0
    k_warmup_steps: Annotated[
        int,
        typer.Option(
            help="Steps in which k_start becomes k, in place of the share --k-warmup.",
            min=0,
            rich_help_panel=OF_OTHERS,
        ),
    ] = 0
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
    buffer_tokens: int = 0
    """Of a training whose embeddings are computed: tokens held at once; 0 with a store."""

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


def _check_ranges(config: TrainConfig) -> None:
    at_least_0: tuple[str, ...]
    at_least_0 = ("n_latents", "batch_size", "epochs", "n_tokens", "k_aux", "dead_after", "seed")
    at_least_0 += ("alpha", "k_start", "multi_k", "ghost_weight", "l1", "l0", "checkpoint_every")
    at_least_0 += ("grad_clip", "weight_decay", "eps", "cls_weight", "warmup_steps")
    at_least_0 += ("k_warmup_steps",)
    for name in ("expansion", "k"):
        _require(getattr(config, name) >= 1, name, getattr(config, name), "at least 1")
    for name in at_least_0:
        _require(getattr(config, name) >= 0, name, getattr(config, name), "at least 0")
    for name in ("holdout", "dropout", "beta1", "beta2", "dead_below"):
        value = getattr(config, name)
        _require(0 <= value < 1, name, value, "in [0, 1)")
    _require(config.lr >= 0, "lr", config.lr, "above 0, or 0 for auto")
    shares = config.warmup, config.decay, config.k_warmup
    _require(min(shares) >= 0, "warmup, decay or k_warmup", "negative", "at least 0")
    _require(config.k_warmup <= 1, "k_warmup", config.k_warmup, "at most 1")
    total = config.decay + (0 if config.warmup_steps else config.warmup)
    _require(total <= 1, "warmup + decay", total, "at most 1: they are shares of the steps")
    both = config.epochs and config.n_tokens
    rule = f"0 where epochs is given ({config.epochs}): give one of the two"
    _require(not both, "n_tokens", config.n_tokens, rule)


def _check_variant(config: TrainConfig) -> None:
    known: dict[str, tuple[str, ...]] = {
        "activation": ACTIVATIONS,
        "ghost": ("", "ttt", "patchsae"),
        "init": ("tied", "data", "ttt", "sketch", "patchsae", "sparsify"),
        "decoder": DECODERS,
        "loss": LOSSES,
        "auxk": ("residual", "total"),
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
    if not config.scale_input:  # these have constants that are made for the mean square 1
        name = "jumprelu" if config.activation == "jumprelu" else "AuxK over the residual"
        auxk = config.alpha and not config.ghost and config.auxk == "residual"
        rule = f"true with {name} (for AuxK: auxk total, or alpha 0)"
        _require(name != "jumprelu" and not auxk, "scale_input", False, rule)
    weighs = config.cls_weight != 1 and config.lr == AUTO_LR
    _require(not weighs, "cls_weight", config.cls_weight, "1 where lr is auto")
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
