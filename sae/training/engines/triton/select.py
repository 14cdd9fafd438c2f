"""Triton kernels that choose: the largest of each token, exactly and without a sort.

The k-th largest of a row of numbers is found bit by bit, by counting how many are at least as
large, in registers; then comes who is above. Of equal numbers the first are kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae.training.engines.losses import LEAK
from sae.training.engines.triton.ops import Encoded, Kept, rows_at_once

MAX_KEYS = 1 << 14
"""Keys that one program holds in registers to select from; beyond that torch.topk selects."""
_LEAK = tl.constexpr(LEAK)
_LOWEST = tl.constexpr(-(2**31))


def select(encoded: Encoded, k: int) -> Kept:
    """The `k` largest pre-activations of each token, exactly: no sort, no second full read.

    The k largest values lie in the k groups with the largest maxima. Of equal values the first
    groups and columns are kept.
    """
    n, n_latents = encoded.pre.shape
    n_groups = encoded.maxima.shape[1]
    wanted = triton.next_power_of_2(k)
    n_keys = max(triton.next_power_of_2(n_groups), wanted * encoded.group)
    if n_keys > MAX_KEYS:
        kept = torch.topk(encoded.pre, k, dim=1, sorted=False)
        return Kept(kept.values.float(), kept.indices.int())
    out = _empty_kept(n, k, encoded.pre.device)
    scratch = torch.empty(n, wanted, dtype=torch.int32, device=encoded.pre.device)
    _select[(n,)](
        *(encoded.pre, encoded.maxima, scratch, out.latents, out.values),
        *(n_latents, n_groups, min(k, n_groups), k),
        GROUP=encoded.group,
        NG=triton.next_power_of_2(n_groups),
        KP=wanted,
        num_warps=_warps(n_keys),
    )
    return out


def rescore(x: Tensor, W_enc: Tensor, b_enc: Tensor, candidates: Tensor, k: int) -> Kept:
    """The `k` largest among the candidates (n, c), by products in the full precision of `W_enc`."""
    (n, d), c = x.shape, candidates.shape[1]
    out = _empty_kept(n, k, x.device)
    scratch = torch.empty(n, c, dtype=torch.float32, device=x.device)
    _rescore[(n,)](
        *(x, W_enc, b_enc, candidates, scratch, out.latents, out.values, c, k),
        D=d,
        DP=triton.next_power_of_2(d),
        CP=triton.next_power_of_2(c),
        BJ=rows_at_once(d),
    )
    return out


def keep_strongest(pre: Tensor, n_valid: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """AuxK's activations of the first `n_valid` columns of `pre` (n, c), and their slopes.

    Both are (n, c), 0 outside each row's `k` largest; there leaky ReLU and its derivative.
    `n_valid` () int32 stays on the device.
    """
    n, c = pre.shape
    if c > MAX_KEYS:
        return _keep_by_topk(pre, n_valid, k)
    acts, slopes = torch.empty_like(pre), torch.empty_like(pre)
    width = triton.next_power_of_2(c)
    _keep[(n,)](pre, acts, slopes, n_valid, c, k, CP=width, num_warps=_warps(width))
    return acts, slopes


def _empty_kept(n: int, k: int, device: torch.device) -> Kept:
    values = torch.empty(n, k, dtype=torch.float32, device=device)
    return Kept(values, torch.empty(n, k, dtype=torch.int32, device=device))


def _warps(n_keys: int) -> int:
    """A warp holds 1,024 keys in its registers; twice as many spill."""
    return max(1, min(16, n_keys // 1024))


def _keep_by_topk(pre: Tensor, n_valid: Tensor, k: int) -> tuple[Tensor, Tensor]:
    valid = torch.arange(pre.shape[1], device=pre.device) < n_valid
    kept = torch.topk(pre.masked_fill(~valid, -torch.inf), k, dim=1, sorted=False)
    slope = torch.where(kept.values > 0, 1.0, LEAK) * (kept.values > -torch.inf)
    slopes = torch.zeros_like(pre).scatter(1, kept.indices, slope)
    return pre * slopes, slopes


@triton.jit
def _key(value):
    """An int32 in the order of float32 values: -0 comes below 0, NaN above all."""
    bits = value.to(tl.float32).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _largest(key, k):
    """Mask of the `k` largest keys (the first among equals), and the place of each among them."""
    # The k-th largest key, bit by bit: counting is cheaper than sorting.
    edge = tl.where(tl.sum((key >= 0).to(tl.int32)) >= k, 0, _LOWEST)
    for i in range(31):
        higher = edge | (1 << (30 - i))
        edge = tl.where(tl.sum((key >= higher).to(tl.int32)) >= k, higher, edge)
    above, level = key > edge, key == edge
    n_level = k - tl.sum(above.to(tl.int32))
    take = above | (level & (tl.cumsum(level.to(tl.int32), 0) <= n_level))
    return take, tl.cumsum(take.to(tl.int32), 0) - 1


@triton.jit
def _select(
    pre,
    maxima,
    scratch,
    latents,
    values,
    n_latents,
    n_groups,
    k_groups,
    k,
    GROUP: tl.constexpr,
    NG: tl.constexpr,
    KP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, NG)
    top = tl.load(maxima + row * n_groups + group, mask=group < n_groups, other=0.0)
    take, place = _largest(tl.where(group < n_groups, _key(top), _LOWEST), k_groups)
    tl.store(scratch + row * KP + place, group, mask=take)
    tl.debug_barrier()
    slot = tl.arange(0, KP * GROUP)
    chosen = slot // GROUP < k_groups
    column = (
        tl.load(scratch + row * KP + slot // GROUP, mask=chosen, other=0) * GROUP + slot % GROUP
    )
    valid = chosen & (column < n_latents)
    value = tl.load(pre + row * n_latents + column, mask=valid, other=0.0).to(tl.float32)
    take, place = _largest(tl.where(valid, _key(value), _LOWEST), k)
    tl.store(latents + row * k + place, column, mask=take)
    tl.store(values + row * k + place, value, mask=take)


@triton.jit
def _rescore(
    x,
    w,
    b,
    candidates,
    scratch,
    latents,
    values,
    c,
    k,
    D: tl.constexpr,
    DP: tl.constexpr,
    CP: tl.constexpr,
    BJ: tl.constexpr,
):
    row, dim = tl.program_id(0), tl.arange(0, DP)
    token = tl.load(x + row * D + dim, mask=dim < D, other=0.0)
    for start in range(0, c, BJ):
        slot = start + tl.arange(0, BJ)
        latent = tl.load(candidates + row * c + slot, mask=slot < c, other=0)
        inside = (slot < c)[:, None] & (dim < D)[None, :]
        rows = tl.load(w + latent[:, None] * D + dim[None, :], mask=inside, other=0.0)
        product = tl.sum(rows.to(tl.float32) * token[None, :], axis=1) + tl.load(b + latent)
        tl.store(scratch + row * c + slot, product, mask=slot < c)
    tl.debug_barrier()
    slot = tl.arange(0, CP)
    value = tl.load(scratch + row * c + slot, mask=slot < c, other=0.0)
    latent = tl.load(candidates + row * c + slot, mask=slot < c, other=0)
    take, place = _largest(tl.where(slot < c, _key(value), _LOWEST), k)
    tl.store(latents + row * k + place, latent, mask=take)
    tl.store(values + row * k + place, value, mask=take)


@triton.jit
def _keep(pre, acts, slopes, n_valid, c, k, CP: tl.constexpr):
    at, n_here = tl.arange(0, CP), tl.load(n_valid)
    row = tl.program_id(0).to(tl.int64) * c
    value = tl.load(pre + row + at, mask=at < c, other=0.0).to(tl.float32)
    key = tl.where(at < n_here, _key(value), _LOWEST)
    take, _ = _largest(key, tl.minimum(n_here, k))
    slope = tl.where(take, tl.where(value > 0, 1.0, _LEAK), 0.0)
    tl.store(acts + row + at, value * slope, mask=at < c)
    tl.store(slopes + row + at, slope, mask=at < c)
