"""Decoder rows -> how alike they are, and which of another dictionary are the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_AT_ONCE = 2048
TWIN = 0.9
"""Directions with a larger cosine than this count as the same one."""
ALIKE = 0.7
"""The bound of Paulo & Belrose 2025 for a latent that another seed finds as well."""


@dataclass(frozen=True)
class Coherence:
    """How alike the live latents of one dictionary are. NaN where fewer than two are live."""

    coherence: float
    """Largest |cosine| of two of them: 1 is a latent that stands in the dictionary twice."""
    mean_max_cosine: float
    """Mean over them of the cosine with their nearest other."""
    twins: float
    """Share of them that have another within cosine .9."""


@dataclass(frozen=True)
class Stability:
    """Whether another SAE (another seed, as a rule) has the same latents. Only live ones count."""

    n_live: int
    n_live_other: int
    matched_cosine: float
    """Mean cosine of the pairs, one latent of each; NaN without pairs."""
    matched_0_7: float
    """Share of this SAE's live latents whose partner has a cosine above .7; 0 has no partner."""
    matched_0_9: float
    nearest_cosine: float
    """Mean cosine with the nearest of the other's latents, which may be the nearest of many."""


class Matching(NamedTuple):
    """Pairs of rows, one of each matrix."""

    ours: Tensor
    """(pairs,) int64, ascending."""
    theirs: Tensor
    """(pairs,) int64, all different."""
    cosine: Tensor
    """(pairs,)"""


@torch.no_grad()
def coherence(W_dec: Tensor, live: Tensor | None = None) -> Coherence:
    """Of the rows of `W_dec` (n_latents, d) that the mask `live` (n_latents,) keeps; all: None."""
    rows = unit_rows(W_dec, live)
    if len(rows) < 2:
        return Coherence(float("nan"), float("nan"), float("nan"))
    largest = []
    nearest = []
    for first, cosines in _blocks(rows, rows):
        itself = torch.arange(len(cosines), device=rows.device)
        cosines[itself, itself + first] = -torch.inf
        nearest.append(cosines.amax(1))
        cosines[itself, itself + first] = 0
        largest.append(cosines.abs().amax())
    cosine = torch.cat(nearest)  # (live,)
    return Coherence(
        coherence=float(torch.stack(largest).max().clamp(max=1)),
        mean_max_cosine=float(cosine.mean()),
        twins=_share(cosine > TWIN),
    )


def stability(
    W_dec: Tensor, other: Tensor, live: Tensor | None = None, live_other: Tensor | None = None
) -> Stability:
    """Compare the live rows of `W_dec` (n_latents, d) with those of `other`, of the same width."""
    ours, theirs = unit_rows(W_dec, live), unit_rows(other.to(W_dec.device), live_other)
    if min(len(ours), len(theirs)) == 0:
        nan = float("nan")
        return Stability(len(ours), len(theirs), nan, nan, nan, nan)
    cosine = match(ours, theirs).cosine
    return Stability(
        n_live=len(ours),
        n_live_other=len(theirs),
        matched_cosine=float(cosine.mean()),
        matched_0_7=int((cosine > ALIKE).sum()) / len(ours),
        matched_0_9=int((cosine > TWIN).sum()) / len(ours),
        nearest_cosine=float(nearest_cosine(ours, theirs).mean()),
    )


@torch.no_grad()
def nearest_cosine(rows: Tensor, others: Tensor) -> Tensor:
    """(n,) cosine of each of `rows` (n, d) with the nearest of `others` (m, d); all unit rows."""
    return torch.cat([cosines.amax(1) for _, cosines in _blocks(rows, others)])


@torch.no_grad()
def match(ours: Tensor, theirs: Tensor) -> Matching:
    """Pair the unit rows (n, d) and (m, d), each at most once: min(n, m) pairs.

    No two rows are nearer to each other than both are to their partners (Gale & Shapley 1962): the
    same pairs as taking the largest cosine first, then the largest of what is left, and so on.
    """
    held = theirs.new_full((len(theirs),), -torch.inf)  # cosine with the partner
    partner = torch.full((len(theirs),), -1, device=theirs.device)  # row of ours; -1: none
    single = torch.arange(len(ours), device=ours.device)
    while len(single):
        cosine, wanted = _best_offer(ours[single], theirs, held)
        hopeful = cosine > -torch.inf  # the others are too many: they stay alone
        single, cosine, wanted = single[hopeful], cosine[hopeful], wanted[hopeful]
        won = _nearest_suitor(cosine, wanted)
        left = partner[wanted[won]]
        partner[wanted[won]], held[wanted[won]] = single[won], cosine[won]
        lost = torch.ones_like(single, dtype=torch.bool)
        lost[won] = False
        single = torch.cat([single[lost], left[left >= 0]])
    paired = (partner >= 0).nonzero().squeeze(1)
    paired = paired[partner[paired].argsort()]
    return Matching(partner[paired], paired, held[paired])


def _best_offer(rows: Tensor, others: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row the largest cosine among those `others` that it would tempt, and which."""
    best = [
        cosines.masked_fill_(cosines <= held, -torch.inf).max(1)
        for _, cosines in _blocks(rows, others)
    ]
    return torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])


def _nearest_suitor(cosine: Tensor, wanted: Tensor) -> Tensor:
    """Places of the suitors that win: for each wanted row the largest cosine, ties to the first."""
    order = cosine.argsort(descending=True, stable=True)
    order = order[wanted[order].argsort(stable=True)]
    runs = wanted[order]
    first = torch.ones_like(runs, dtype=torch.bool)
    first[1:] = runs[1:] != runs[:-1]
    return order[first]


def unit_rows(W_dec: Tensor, live: Tensor | None) -> Tensor:
    """The rows of `W_dec` that the mask `live` keeps (None: all), of unit length."""
    rows = W_dec.detach().float()
    return F.normalize(rows if live is None else rows[live.to(rows.device)], dim=1)


def _blocks(rows: Tensor, others: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cosines (block, m), a block of `rows` at a time, with the number of its first row."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        yield first, rows[first : first + ROWS_AT_ONCE] @ others.T


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
