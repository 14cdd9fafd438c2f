"""Which latents the tokens of a batch keep: the dense product of an encoder, and a selection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sae.model.sparsity import BatchTopK
from sae.training.engines.interface import Reduce
from sae.training.engines.sparse.products import dots, meetings, product
from sae.training.engines.sparse.topk import largest

Precision = Literal["float32", "bfloat16"]

MARGIN = 8
"""Candidates beyond k: the k + 8 largest in bfloat16 held the k largest of float32 in all rows."""
AT_ONCE = 1 << 22
"""Pre-activations held at once; memory of this size is used again instead of being cleared."""


class Kept(NamedTuple):
    """Codes whose columns are in no order; where fewer than k latents fire, the rest is 0."""

    latents: Tensor
    """(n, k), int64."""
    acts: Tensor
    """(n, k), >= 0."""


def strongest(x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, precision: Precision) -> Kept:
    """TopK of tokens `x` (n, d) without b_dec; `W_enc` is (n_latents, d).

    bfloat16 only finds candidates: what is kept of them, and with which activation, is decided in
    float32.
    """
    if precision == "float32":
        found = list(_screen_blocks(x, W_enc, b_enc, k))
        return Kept(torch.cat([f.latents for f in found]), torch.cat([f.acts for f in found]))
    rough = x.bfloat16(), W_enc.bfloat16(), b_enc.bfloat16()
    found = list(_screen_blocks(*rough, min(k + MARGIN, len(b_enc))))
    candidates = torch.cat([f.latents for f in found])
    at = meetings(candidates, len(b_enc))
    exact = dots(at, W_enc, x) + b_enc[at.latents]
    pre = torch.empty_like(exact).index_copy_(0, at.order, exact).view(candidates.shape)
    kept = largest(pre, k)
    return Kept(candidates.gather(1, kept), pre.gather(1, kept).relu())


def strongest_of_batch(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, rule: BatchTopK, reduce: Reduce | None
) -> tuple[Kept, Tensor]:
    """BatchTopK of the same, and its border (); as wide as the busiest token needs."""
    pre = product(x, W_enc, b_enc)  # (n, n_latents)
    border = rule.border(pre, k, reduce) if reduce is not None else _border(pre, k)
    width = int((pre >= border).sum(1).max()) if border > 0 else len(b_enc)
    latents = largest(pre, max(1, width))
    acts = pre.gather(1, latents)
    return Kept(latents, acts.where(acts >= border, 0).relu()), border


def _screen_blocks(x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int) -> Iterator[Kept]:
    """TopK in the arithmetic of the arguments, some tokens at a time."""
    at_once = max(1, AT_ONCE // len(b_enc))
    for start in range(0, len(x), at_once):
        pre = product(x[start : start + at_once], W_enc, b_enc)
        latents = largest(_ordered(pre), k)
        yield Kept(latents, pre.gather(1, latents).relu())


def _ordered(pre: Tensor) -> Tensor:
    """Numbers in the order of `pre`, at least of those above 0, that are faster to compare."""
    # The bits of a bfloat16 are in its order; below 0 they are reversed, but there no act is left.
    return pre.view(torch.int16) if pre.dtype == torch.bfloat16 else pre


def _border(pre: Tensor, k: int) -> Tensor:
    """The (k n)-th largest activation of a batch (), 0 where fewer fire."""
    if k >= pre.shape[1]:
        return pre.new_zeros(())
    every = pre.view(1, -1)
    return every.gather(1, largest(every, k * len(pre))).min().relu()
