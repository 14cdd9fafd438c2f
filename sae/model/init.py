"""Where training begins: an SAE whose rows, bias, mean and scale fit the data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sae import SAE, SAEConfig
from sae.training.feed import batches

INITS = ("tied", "data")
DATA_SHARE = 0.8
"""Weight of the data point in a row that begins as one; the rest is a random direction."""


def start(config: SAEConfig, x: Tensor, init: str = "tied") -> SAE:
    """An untrained SAE on the CPU for data like `x` (n, d).

    Decoder rows are random directions ("tied") or lie near data points ("data"), the encoder is
    their copy (Gao et al. 2024, A.1), b_dec is the geometric median.
    """
    if init not in INITS:
        raise UserError(f"init {init!r} is not known; known: {', '.join(INITS)}")
    model = SAE(config)
    values = batches.start_values(x)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        model.mean.copy_(values.mean)
        model.scale.copy_(values.scale)
        model.b_dec.copy_(values.median)
        rows = _random_rows(config, generator)
        if init == "data":
            rows = _near_data(model, x, rows, generator)
        model.W_dec.copy_(rows)
        model.W_enc.copy_(rows)
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
