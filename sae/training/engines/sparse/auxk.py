"""AuxK and its gradients by hand, on the dead latents alone: the same as `losses.auxk_loss`."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.training.engines.losses import LEAK
from sae.training.engines.sparse.products import dots, meetings, mix, product, sums, totals
from sae.training.engines.sparse.topk import largest

SPARSE_FROM = 4
"""Above so many dead latents for each one chosen, only the chosen are multiplied (CPU; equal at
about 1,000 for 256 of width 512)."""


class Rows(NamedTuple):
    """The encoder and decoder rows of some latents, or their gradients."""

    W_enc: Tensor
    """(n_rows, d)"""
    b_enc: Tensor
    """(n_rows,)"""
    W_dec: Tensor
    """(n_rows, d)"""


class Revival(NamedTuple):
    """What AuxK asks of the dead latents, before its weight."""

    loss: Tensor
    """()"""
    gradients: Rows
    along: Tensor
    """(n_rows,): decoder gradient . decoder row."""


def revival(dead: Rows, centred: Tensor, error: Tensor, k_aux: int, variance: Tensor) -> Revival:
    """AuxK of tokens `centred` (n, d), which are x - b_dec, and its gradients.

    `error` (n, d) is x_hat - x, a constant; `variance` () that of the residual, with its floor.
    """
    pre = product(centred, dead.W_enc, dead.b_enc)  # (n, n_dead)
    n_dead = pre.shape[1]
    if n_dead > SPARSE_FROM * k_aux:
        return _by_pairs(dead, centred, error, variance, pre, largest(pre, k_aux))
    chosen = torch.ones_like(pre)
    if n_dead > k_aux:
        chosen = torch.zeros_like(pre).scatter_(1, largest(pre, k_aux), 1.0)
    return _by_block(dead, centred, error, variance, pre, chosen)


def _by_pairs(
    dead: Rows, centred: Tensor, error: Tensor, variance: Tensor, pre: Tensor, columns: Tensor
) -> Revival:
    pre = pre.gather(1, columns)  # (n, k_aux)
    acts = F.leaky_relu(pre, LEAK)
    left = mix(columns, acts, dead.W_dec) + error  # (n, d)
    slope = left * (2 / variance)
    at = meetings(columns, len(dead.b_enc))
    by_latent = acts.flatten()[at.order]
    by_act = dots(at, dead.W_dec, slope)
    by_pre = by_act * _leak(by_latent)
    gradients = Rows(sums(at, by_pre, centred), totals(at, by_pre), sums(at, by_latent, slope))
    return Revival(left.square().sum() / variance, gradients, totals(at, by_latent * by_act))


def _by_block(
    dead: Rows, centred: Tensor, error: Tensor, variance: Tensor, pre: Tensor, chosen: Tensor
) -> Revival:
    acts = F.leaky_relu(pre, LEAK) * chosen  # (n, n_dead)
    left = product(acts, dead.W_dec.t()) + error  # (n, d)
    slope = left * (2 / variance)
    by_act = product(slope, dead.W_dec)
    along = (acts * by_act).sum(0)
    by_pre = by_act * _leak(pre) * chosen
    gradients = Rows(product(by_pre.t(), centred.t()), by_pre.sum(0), product(acts.t(), slope.t()))
    return Revival(left.square().sum() / variance, gradients, along)


def _leak(values: Tensor) -> Tensor:
    """Slope of the leaky ReLU where pre-activations, or activations, have these signs."""
    return torch.full_like(values, LEAK).masked_fill_(values > 0, 1.0)
