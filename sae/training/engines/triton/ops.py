"""Triton kernels over the whole batch: the encode product, and the decoding of what is kept.

Every function takes and gives contiguous tensors on one device and waits for nothing. Shapes:
`n` tokens, `d` width, `k` latents a token. No size has to be a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_GROUP = 32
_TILE = 1 << 12
"""Values of gathered dictionary rows in flight in one program."""
_GROUP_TILES = tl.constexpr(8)


@dataclass(frozen=True)
class Tiles:
    """How the encode product is cut up, and what hot latents are cut into."""

    tokens: int = 128
    latents: int = 256
    depth: int = 64
    """Dimensions multiplied at a time."""
    warps: int = 8
    stages: int = 3
    chunk: int = 256
    """Entries of one latent that one program sums at most; a latent with more is shared."""


class Encoded(NamedTuple):
    """All pre-activations of a batch, and where the large ones are."""

    pre: Tensor
    """(n, n_latents), float32 or bfloat16."""
    maxima: Tensor
    """(n, n_groups), the largest of each `group` neighbouring columns."""
    group: int


class Kept(NamedTuple):
    """What is selected of each token, in no particular order."""

    values: Tensor
    """(n, k) float32."""
    latents: Tensor
    """(n, k) int32, all different within a row."""


class Decoded(NamedTuple):
    residual: Tensor
    """(n, d): x - x_hat."""
    squares: Tensor
    """(n,): sum of its squares."""
    pulls: Tensor
    """(n, k): W_dec[latent] . residual where the latent is active, else 0."""


def encode(x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, tiles: Tiles) -> Encoded:
    """x @ W_enc.T + b_enc in the type of `x` and `W_enc`, summed in float32; groups that suit `k`.

    `x` (n, d) has b_dec taken out; `b_enc` is float32.
    """
    (n, d), n_latents = x.shape, len(W_enc)
    group = group_size(n_latents, k)
    n_groups = triton.cdiv(n_latents, group)
    pre = torch.empty(n, n_latents, dtype=x.dtype, device=x.device)
    maxima = torch.empty(n, n_groups, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(n, tiles.tokens) * triton.cdiv(n_latents, tiles.latents),)
    cut = {"BM": tiles.tokens, "BN": tiles.latents, "BK": tiles.depth, "GROUP": group}
    how = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    _encode[grid](x, W_enc, b_enc, pre, maxima, n, n_latents, n_groups, D=d, **cut, **how)
    return Encoded(pre, maxima, group)


def decode(x: Tensor, W_dec: Tensor, kept: Kept) -> Decoded:
    """What `kept` (values > 0 are active) leaves of `x`, and how each active latent would help.

    `x` (n, d) has b_dec taken out. Rows of `W_dec`, of any float type, are read from memory once.
    """
    (n, d), k = x.shape, kept.values.shape[1]
    residual, squares = torch.empty_like(x), x.new_empty(n)
    pulls = torch.empty_like(kept.values)
    sizes = {"D": d, "DP": triton.next_power_of_2(d), "BJ": rows_at_once(d)}
    _decode[(n,)](x, W_dec, kept.latents, kept.values, residual, squares, pulls, k, **sizes)
    return Decoded(residual, squares, pulls)


def group_size(n_latents: int, k: int) -> int:
    """A power of two such that groups and candidates (k groups' columns) are about as many."""
    size = 4
    while size < MAX_GROUP and (2 * size) ** 2 * k <= 2 * n_latents:
        size *= 2
    return size


def rows_at_once(d: int) -> int:
    """Dictionary rows of width `d` that a program holds at a time: a power of two."""
    return max(1, min(8, _TILE // int(triton.next_power_of_2(d))))


@triton.jit
def _encode(
    x,
    w,
    b,
    pre,
    maxima,
    n,
    n_latents,
    n_groups,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
):
    # Neighbouring programs share tiles of tokens and of latents: both then come from the L2 cache.
    pid, n_rows, n_columns = tl.program_id(0), tl.cdiv(n, BM), tl.cdiv(n_latents, BN)
    first = pid // (_GROUP_TILES * n_columns) * _GROUP_TILES
    n_here = tl.minimum(n_rows - first, _GROUP_TILES)
    within = pid % (_GROUP_TILES * n_columns)
    tile = within // n_here
    token = (first + within % n_here) * BM + tl.arange(0, BM)
    latent = tile * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, D, BK):
        dim = start + tl.arange(0, BK)
        ours = (token < n)[:, None] & (dim < D)[None, :]
        theirs = (latent < n_latents)[:, None] & (dim < D)[None, :]
        a = tl.load(x + token[:, None] * D + dim[None, :], mask=ours, other=0.0)
        c = tl.load(w + latent[:, None] * D + dim[None, :], mask=theirs, other=0.0)
        acc = tl.dot(a, tl.trans(c), acc, input_precision="ieee")
    acc += tl.load(b + latent, mask=latent < n_latents, other=0.0)[None, :]
    # Rounded before the maxima are taken: a group's maximum is one of its stored values.
    out = tl.where((latent < n_latents)[None, :], acc, float("-inf")).to(pre.dtype.element_ty)
    at = token.to(tl.int64)[:, None]
    inside = (token < n)[:, None]
    tl.store(pre + at * n_latents + latent[None, :], out, inside & (latent < n_latents)[None, :])
    largest = tl.max(tl.reshape(out, (BM, BN // GROUP, GROUP)), axis=2)
    group = tile * (BN // GROUP) + tl.arange(0, BN // GROUP)
    tl.store(maxima + at * n_groups + group[None, :], largest, inside & (group < n_groups)[None, :])


@triton.jit
def _decode(
    x,
    w,
    latents,
    values,
    residual,
    squares,
    pulls,
    k,
    D: tl.constexpr,
    DP: tl.constexpr,
    BJ: tl.constexpr,
):
    row, dim = tl.program_id(0), tl.arange(0, DP)
    rest = tl.load(x + row * D + dim, mask=dim < D, other=0.0)
    for start in range(0, k, BJ):
        slot = start + tl.arange(0, BJ)
        latent = tl.load(latents + row * k + slot, mask=slot < k, other=0)
        value = tl.load(values + row * k + slot, mask=slot < k, other=0.0)
        # As torch's relu: a value that is not a number must reach the loss.
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
        inside = (slot < k)[:, None] & (dim < D)[None, :]
        rows = tl.load(w + latent[:, None] * D + dim[None, :], mask=inside, other=0.0)
        rest -= tl.sum(value[:, None] * rows.to(tl.float32), axis=0)
    tl.store(residual + row * D + dim, rest, mask=dim < D)
    tl.store(squares + row, tl.sum(rest * rest))
    for start in range(0, k, BJ):
        slot = start + tl.arange(0, BJ)
        latent = tl.load(latents + row * k + slot, mask=slot < k, other=0)
        value = tl.load(values + row * k + slot, mask=slot < k, other=0.0)
        inside = (slot < k)[:, None] & (dim < D)[None, :]
        rows = tl.load(w + latent[:, None] * D + dim[None, :], mask=inside, other=0.0)
        pull = tl.sum(rows.to(tl.float32) * rest[None, :], axis=1)
        tl.store(pulls + row * k + slot, tl.where(value > 0, pull, 0.0), mask=slot < k)
