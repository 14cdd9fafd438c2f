"""Data and a config -> an untrained SAE whose rows, bias, mean and scale fit the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sae import SAE, SAEConfig


class _Lab(NamedTuple):
    """How another lab starts: uniform encoder weights, and unit decoder rows."""

    bound: Callable[[int, int], float]
    """Of the weights' size, by d and n_latents."""
    tied: bool
    """The decoder's rows have the encoder's directions, else directions of their own."""
    median: bool
    """b_dec starts at the geometric median, else at 0."""


_LABS = {
    "ttt": _Lab(lambda d, n: math.sqrt(6 / (d + n)), tied=True, median=False),
    "sketch": _Lab(lambda d, n: math.sqrt(6 / (d + n)), tied=False, median=False),
    "patchsae": _Lab(lambda d, n: math.sqrt(6 / n), tied=False, median=True),
    "sparsify": _Lab(lambda d, n: 1 / math.sqrt(d), tied=True, median=True),
}
INITS = ("tied", "data", *_LABS)
DATA_SHARE = 0.8
"""Weight of the data point in a row that begins as one; the rest is a random direction."""


def start(config: SAEConfig, x: Tensor, init: str = "tied", scale_input: bool = True) -> SAE:
    """An untrained SAE on the CPU for data like `x` (n, d).

    Decoder rows are random directions ("tied") or lie near data points ("data"), the encoder is
    their copy (Gao et al. 2024, A.1), b_dec is the geometric median; or all as another lab has it
    (its name). Without `scale_input` the SAE works on embeddings as they are: mean 0, scale 1.
    """
    if init not in INITS:
        raise UserError(f"init {init!r} is not known; known: {', '.join(INITS)}")
    model = SAE(config)
    values = start_values(x)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        if scale_input:
            model.mean.copy_(values.mean)
            model.scale.copy_(values.scale)
            model.b_dec.copy_(values.median)
        else:
            model.b_dec.copy_(values.median * values.scale + values.mean)
        if init in _LABS:
            return _as_in(_LABS[init], model, generator)
        rows = _random_rows(config, generator)
        if init == "data":
            rows = _near_data(model, x, rows, generator)
        model.W_dec.copy_(rows)
        model.W_enc.copy_(rows)
    return model


def _as_in(lab: _Lab, model: SAE, generator: torch.Generator) -> SAE:
    """The same SAE with the weights of another lab's start."""
    bound = lab.bound(model.d, model.n_latents)
    model.W_enc.uniform_(-bound, bound, generator=generator)
    own = torch.empty_like(model.W_dec).uniform_(-1, 1, generator=generator)
    model.W_dec.copy_(F.normalize(model.W_enc if lab.tied else own, dim=1))
    if not lab.median:
        model.b_dec.zero_()
    return model


def _random_rows(config: SAEConfig, generator: torch.Generator) -> Tensor:
    rows = torch.randn(config.n_latents, config.d, generator=generator)
    return F.normalize(rows, dim=1)  # (n_latents, d)


def _near_data(model: SAE, x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Unit rows near centred data points: each point once before any comes again."""
    order = torch.randperm(len(x), generator=generator)
    chosen = order[torch.arange(model.n_latents) % len(x)]
    points = F.normalize(model.centre(x[chosen]) - model.b_dec, dim=1)
    return F.normalize(DATA_SHARE * points + (1 - DATA_SHARE) * rows, dim=1)


CHUNK_TOKENS = 1 << 13


class Start(NamedTuple):
    """Location and size of the data."""

    mean: Tensor
    """(d,), of raw embeddings."""
    scale: Tensor
    """(), root of the mean square of (x - mean), per dimension."""
    median: Tensor
    """(d,), geometric median of (x - mean) / scale."""


def start_values(x: Tensor) -> Start:
    """Mean, scale and geometric median of tokens (n, d), in float32; read in chunks.

    Raises `UserError` when values are not finite or all tokens are equal.
    """
    n, d = x.shape
    mean = torch.zeros(d, dtype=torch.float64)
    for part in torch.split(x, CHUNK_TOKENS):
        mean += part.double().sum(0) / n
    square = torch.zeros((), dtype=torch.float64)
    for part in torch.split(x, CHUNK_TOKENS):
        square += (part.double() - mean).square().sum()
    scale = (square / (n * d)).sqrt()
    if not bool(scale.isfinite()):
        raise UserError("the store holds values that are not finite; run `sae embed` again")
    if float(scale) <= 1e-6 * float(mean.abs().max()):
        raise UserError(f"all {n} embeddings are equal: there is nothing to learn from this store")
    median = _geometric_median(x, mean, scale)
    return Start(mean.float(), scale.float(), median.float())


def _geometric_median(x: Tensor, mean: Tensor, scale: Tensor, n_iterations: int = 100) -> Tensor:
    """The point with the least sum of distances to (x - mean) / scale, by Weiszfeld's iteration."""
    point = mean.clone()
    for _ in range(n_iterations):
        # As a sum of two float32 it is as exact as float64, at a third of the time.
        high = point.float()
        low = (point - high).float()
        total, weight = torch.zeros_like(mean), torch.zeros_like(scale)
        for part in torch.split(x, CHUNK_TOKENS):
            away = (part - high).sub_(low).float()  # (c, d)
            # The bound keeps a data point that is the median from taking an infinite weight.
            w = 1 / (away.norm(dim=1) / scale).clamp(min=1e-6).float()  # (c,)
            total, weight = total + w @ away, weight + w.sum()
        step = total / weight
        point += step
        if float((step / scale).norm()) <= 1e-5 * len(mean) ** 0.5:
            break
    return (point - mean) / scale
