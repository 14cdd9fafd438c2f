"""Triton kernels that step Adam row by row, on gradients that are summed on the spot.

One program per latent sums both its gradient rows in registers, takes out the decoder's parallel
part, steps Adam and brings the row back to unit length: no gradient tensor is written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae.training.engines.interface import BETAS, EPS
from sae.training.engines.triton.gradients import (
    Block,
    Entries,
    Pulled,
    no_block,
    partial_sums,
    sums,
)
from sae.training.engines.triton.ops import rows_at_once

_BETA1, _BETA2, _EPS = tl.constexpr(BETAS[0]), tl.constexpr(BETAS[1]), tl.constexpr(EPS)


class Moments(NamedTuple):
    """Adam's two running means, each of its parameter's shape."""

    mean: Tensor
    square: Tensor


class Rows(NamedTuple):
    """The weights with a row per latent, and what is kept beside them."""

    W_enc: Tensor
    W_dec: Tensor
    enc: Moments
    dec: Moments
    low_enc: Tensor | None
    """Copy of W_enc in fewer bits, renewed with it; None: not wanted."""
    low_dec: Tensor | None


def step_rows(
    rows: Rows, entries: Entries, pulled: Pulled, block: Block | None, hyper: Tensor, chunk: int
) -> None:
    """Adam on W_enc and W_dec, whose rows' gradients are those of `pulled` plus `block`.

    `hyper` (3,) is the learning rate, 1 - beta1^t and 1 - beta2^t.
    """
    _launch(rows, (entries, pulled), block, rows.W_enc, rows.W_dec, hyper, chunk)


def gradient_rows(
    rows: Rows, entries: Entries, pulled: Pulled, block: Block | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """The same gradients written out: of W_enc and of W_dec, both (n_latents, d)."""
    out = torch.empty_like(rows.W_enc), torch.empty_like(rows.W_dec)
    _launch(rows, (entries, pulled), block, *out, None, chunk)
    return out


def step_rows_by(rows: Rows, block: Block, hyper: Tensor) -> None:
    """Adam on W_enc and W_dec by the gradients in `block` alone."""
    _launch(rows, None, block, rows.W_enc, rows.W_dec, hyper, 1)


def step_vector(parameter: Tensor, moments: Moments, gradient: Tensor, hyper: Tensor) -> None:
    """Adam on a vector; `hyper` as for `step_rows`."""
    size = len(parameter)
    _vector[(triton.cdiv(size, 1024),)](
        parameter, moments.mean, moments.square, gradient, hyper, size, BLOCK=1024
    )


def _launch(
    rows: Rows,
    summed: tuple[Entries, Pulled] | None,
    block: Block | None,
    out_enc: Tensor,
    out_dec: Tensor,
    hyper: Tensor | None,
    chunk: int,
) -> None:
    """`out_enc` and `out_dec` are written where there is no `hyper`: instead of a step."""
    n_latents, d = rows.W_enc.shape
    nothing = rows.W_enc  # a place to point at, never read
    sources, k = [nothing] * 8, 1
    if summed is not None:
        (_, order, starts), pulled = summed
        sources, k = [starts, order, *pulled, partial_sums(*summed, chunk)], pulled.acts.shape[1]
    slot, extra_enc, extra_dec, _ = block or no_block(nothing)
    low_enc = nothing if rows.low_enc is None else rows.low_enc
    low_dec = nothing if rows.low_dec is None else rows.low_dec
    _rows[(n_latents,)](
        *(*sources, slot, extra_enc, extra_dec, out_enc, out_dec),
        *(rows.W_enc, rows.W_dec, *rows.enc, *rows.dec, low_enc, low_dec),
        *(nothing if hyper is None else hyper, k),
        D=d,
        DP=triton.next_power_of_2(d),
        BJ=rows_at_once(d),
        CHUNK=chunk,
        GATHER=summed is not None,
        EXTRA=block is not None,
        UPDATE=hyper is not None,
        LOW_ENC=rows.low_enc is not None,
        LOW_DEC=rows.low_dec is not None,
    )


@triton.jit
def _adam(value, gradient, mean, square, hyper, at, inside):
    """The value after a step, by the arithmetic of torch.optim.Adam; renews both moments `at`."""
    new_mean = tl.load(mean + at, mask=inside, other=0.0)
    new_mean += (1 - _BETA1) * (gradient - new_mean)
    old_square = tl.load(square + at, mask=inside, other=0.0)
    new_square = _BETA2 * old_square + (1 - _BETA2) * gradient * gradient
    tl.store(mean + at, new_mean, mask=inside)
    tl.store(square + at, new_square, mask=inside)
    rate, c1, c2 = tl.load(hyper), tl.load(hyper + 1), tl.load(hyper + 2)
    size = tl.sqrt_rn(new_square) / tl.sqrt_rn(c2) + _EPS
    return value - (rate / c1) * new_mean / size


@triton.jit
def _store(weight, low, value, at, inside, LOW: tl.constexpr):
    """Renew a weight, and its copy in fewer bits where there is one."""
    tl.store(weight + at, value, mask=inside)
    if LOW:
        tl.store(low + at, value.to(low.dtype.element_ty), mask=inside)


@triton.jit
def _gather(
    latent,
    starts,
    order,
    x,
    residual,
    acts,
    pulls,
    scale,
    partial,
    k,
    D: tl.constexpr,
    DP: tl.constexpr,
    BJ: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Both gradient rows of a latent from its own entries, whole chunks of which are summed."""
    dim = tl.arange(0, DP)
    start, end = tl.load(starts + latent), tl.load(starts + latent + 1)
    first, last = tl.cdiv(start, CHUNK), end // CHUNK  # the whole chunks within this latent
    skip = tl.maximum(last - first, 0) * CHUNK
    n_own, split = end - start - skip, first * CHUNK - start
    enc, dec = sums(start, n_own, split, skip, order, x, residual, acts, pulls, k, D, DP, BJ)
    for chunk in range(first, last):
        enc += tl.load(partial + 2 * chunk * D + dim, mask=dim < D, other=0.0)
        dec += tl.load(partial + (2 * chunk + 1) * D + dim, mask=dim < D, other=0.0)
    return enc * tl.load(scale), dec * tl.load(scale)


@triton.jit
def _rows(
    starts,
    order,
    x,
    residual,
    acts,
    pulls,
    scale,
    partial,
    slot,
    extra_enc,
    extra_dec,
    out_enc,
    out_dec,
    w_enc,
    w_dec,
    mean_enc,
    square_enc,
    mean_dec,
    square_dec,
    low_enc,
    low_dec,
    hyper,
    k,
    D: tl.constexpr,
    DP: tl.constexpr,
    BJ: tl.constexpr,
    CHUNK: tl.constexpr,
    GATHER: tl.constexpr,
    EXTRA: tl.constexpr,
    UPDATE: tl.constexpr,
    LOW_ENC: tl.constexpr,
    LOW_DEC: tl.constexpr,
):
    latent, dim = tl.program_id(0), tl.arange(0, DP)
    at, inside = latent * D + dim, dim < D
    enc, dec = tl.zeros((DP,), tl.float32), tl.zeros((DP,), tl.float32)
    if GATHER:
        enc, dec = _gather(
            latent, starts, order, x, residual, acts, pulls, scale, partial, k, D, DP, BJ, CHUNK
        )
    if EXTRA:
        place = tl.load(slot + latent) * D + dim  # below 0 where this latent has no row
        enc += tl.load(extra_enc + place, mask=inside & (place >= 0), other=0.0)
        dec += tl.load(extra_dec + place, mask=inside & (place >= 0), other=0.0)
    if UPDATE:
        value = tl.load(w_dec + at, mask=inside, other=0.0)
        dec -= tl.sum(dec * value) * value  # what would only change the row's length
        value = _adam(value, dec, mean_dec, square_dec, hyper, at, inside)
        length = tl.sqrt_rn(tl.sum(tl.where(inside, value * value, 0.0)))
        value = value / tl.maximum(length, 1e-12, propagate_nan=tl.PropagateNan.ALL)
        _store(w_dec, low_dec, value, at, inside, LOW_DEC)
        value = tl.load(w_enc + at, mask=inside, other=0.0)
        value = _adam(value, enc, mean_enc, square_enc, hyper, at, inside)
        _store(w_enc, low_enc, value, at, inside, LOW_ENC)
    else:
        tl.store(out_enc + at, enc, mask=inside)
        tl.store(out_dec + at, dec, mask=inside)


@triton.jit
def _vector(value, mean, square, gradient, hyper, size, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    old = tl.load(value + at, mask=at < size, other=0.0)
    step = tl.load(gradient + at, mask=at < size, other=0.0)
    tl.store(value + at, _adam(old, step, mean, square, hyper, at, at < size), mask=at < size)
