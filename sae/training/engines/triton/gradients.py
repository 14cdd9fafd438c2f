"""Triton kernels latent by latent: gradients as sums over the tokens where a latent is active.

The entries of a batch, sorted by latent, are cut at multiples of `chunk`; a chunk that lies within
one latent is summed by a program of its own, so that a latent which fires on every token holds
nothing up. No atomics: equal inputs give equal bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae.training.engines.triton.ops import rows_at_once


class Entries(NamedTuple):
    """The active (token, latent) pairs of a batch, sorted by latent, then by token."""

    sorted: Tensor
    """(n * k,) int32: each entry's latent; n_latents (and last) where nothing is active."""
    order: Tensor
    """(n * k,) int64: each entry's place in the flat (n, k) tensors."""
    starts: Tensor
    """(n_latents + 1,) int32: latent `i` has the entries starts[i] .. starts[i + 1]."""


class Pulled(NamedTuple):
    """What the gradients of the living latents are summed from; all float32."""

    x: Tensor
    """(n, d), b_dec taken out."""
    residual: Tensor
    """(n, d)."""
    acts: Tensor
    """(n, k), pre-activations: those below 0 have no entry."""
    pulls: Tensor
    """(n, k), W_dec[latent] . residual."""
    scale: Tensor
    """() what turns sums of these into gradients: -2 / variance."""


class Block(NamedTuple):
    """Gradients of some latents, dense."""

    slot: Tensor
    """(n_latents,) int32: the row of each latent in the block; -1 where it has none."""
    W_enc: Tensor
    """(rows, d)."""
    W_dec: Tensor
    b_enc: Tensor
    """(rows,)."""


def by_latent(acts: Tensor, latents: Tensor, n_latents: int) -> Entries:
    """Sort the entries with acts > 0 by latent. Waits for nothing: the shapes do not depend on
    how many there are.
    """
    # NaN stays an entry: it must reach the weights, as it would without sparsity.
    key = torch.where(acts <= 0, n_latents, latents).flatten()
    found = torch.sort(key, stable=True)
    bounds = torch.arange(n_latents + 1, dtype=torch.int32, device=key.device)
    starts = torch.searchsorted(found.values, bounds, out_int32=True)
    return Entries(found.values, found.indices, starts)


def bias_gradient(entries: Entries, pulled: Pulled, block: Block | None) -> Tensor:
    """The gradient (n_latents,) of b_enc."""
    n_latents = len(entries.starts) - 1
    out = pulled.acts.new_empty(n_latents)
    extra = block or no_block(out)
    _bias[(n_latents,)](
        *(entries.starts, entries.order, pulled.pulls, pulled.scale),
        *(extra.slot, extra.b_enc, out),
        EXTRA=block is not None,
        BLOCK=128,
        num_warps=1,
    )
    return out


def partial_sums(entries: Entries, pulled: Pulled, chunk: int) -> Tensor:
    """Of each chunk of `chunk` entries that lies within one latent: the sums (n_chunks, 2, d) of
    pull * x and of act * residual; of other chunks nothing is written.
    """
    d, n_chunks = pulled.x.shape[1], len(entries.sorted) // chunk
    partial = pulled.x.new_empty(max(1, n_chunks), 2, d)
    if n_chunks:
        n_latents, k = len(entries.starts) - 1, pulled.acts.shape[1]
        _partial[(n_chunks,)](
            *(entries.sorted, entries.order, *pulled[:4], partial, n_latents, k),
            D=d,
            DP=triton.next_power_of_2(d),
            BJ=rows_at_once(d),
            CHUNK=chunk,
        )
    return partial


def no_block(like: Tensor) -> Block:
    """Something to point at where there is no block."""
    return Block(like, like, like, like)


@triton.jit
def sums(
    start,
    n_own,
    split,
    skip,
    order,
    x,
    residual,
    acts,
    pulls,
    k,
    D: tl.constexpr,
    DP: tl.constexpr,
    BJ: tl.constexpr,
):
    """Sums of pull * x and of act * residual over `n_own` entries from `start`, leaving out `skip`
    of them after the first `split`.
    """
    dim = tl.arange(0, DP)
    enc, dec = tl.zeros((DP,), tl.float32), tl.zeros((DP,), tl.float32)
    for first in range(0, n_own, BJ):
        own = first + tl.arange(0, BJ)
        place = start + own + tl.where(own >= split, skip, 0)
        entry = tl.load(order + place, mask=own < n_own, other=0)
        act = tl.load(acts + entry, mask=own < n_own, other=0.0)
        pull = tl.load(pulls + entry, mask=own < n_own, other=0.0)
        inside = (own < n_own)[:, None] & (dim < D)[None, :]
        at = (entry // k)[:, None] * D + dim[None, :]
        enc += tl.sum(pull[:, None] * tl.load(x + at, mask=inside, other=0.0), axis=0)
        dec += tl.sum(act[:, None] * tl.load(residual + at, mask=inside, other=0.0), axis=0)
    return enc, dec


@triton.jit
def _partial(
    sorted_latents,
    order,
    x,
    residual,
    acts,
    pulls,
    partial,
    n_latents,
    k,
    D: tl.constexpr,
    DP: tl.constexpr,
    BJ: tl.constexpr,
    CHUNK: tl.constexpr,
):
    chunk, dim = tl.program_id(0), tl.arange(0, DP)
    first = tl.load(sorted_latents + chunk * CHUNK)
    last = tl.load(sorted_latents + chunk * CHUNK + CHUNK - 1)
    if (first == last) & (first < n_latents):
        start = chunk * CHUNK
        enc, dec = sums(start, CHUNK, CHUNK, 0, order, x, residual, acts, pulls, k, D, DP, BJ)
        tl.store(partial + 2 * chunk * D + dim, enc, mask=dim < D)
        tl.store(partial + (2 * chunk + 1) * D + dim, dec, mask=dim < D)


@triton.jit
def _bias(
    starts,
    order,
    pulls,
    scale,
    slot,
    extra,
    out,
    EXTRA: tl.constexpr,
    BLOCK: tl.constexpr,
):
    latent = tl.program_id(0)
    start, end = tl.load(starts + latent), tl.load(starts + latent + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(start, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        entry = tl.load(order + place, mask=place < end, other=0)
        total += tl.load(pulls + entry, mask=place < end, other=0.0)
    gradient = tl.load(scale) * tl.sum(total)
    if EXTRA:
        row = tl.load(slot + latent)
        gradient += tl.load(extra + row, mask=row >= 0, other=0.0)
    tl.store(out + latent, gradient)
