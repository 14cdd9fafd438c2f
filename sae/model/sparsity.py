"""Which latents a token keeps: the activation rules, and the form in which activations leave.

A rule's `keep` is what a finished SAE does; its `train` is what training does, with gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError

RULES_WITH_K = ("topk", "signed_topk", "batch_topk")
RULES = (*RULES_WITH_K, "jumprelu", "relu")
"""Names of the rules that can be trained here, as `activation` in an SAE's config.json."""
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "dense_gelu": F.gelu,
    "dense_softplus": F.softplus,
}
"""Activations that are 0 nowhere."""
ALL_WITH_K = (*RULES_WITH_K, "abs_topk", "group_max")
ALL_RULES = (*RULES, "abs_topk", "group_max", *SMOOTH)
"""With those of imported SAEs alone."""
BANDWIDTH = 0.5
"""Width of the window about a JumpReLU threshold in which tokens move it, where pre-activations of
a random direction have a mean square of 1. Hardly matters: 0.05 to 1 gave FVU .136 to .115."""
MEMORY = 0.05
"""Weight of the newest batch in BatchTopK's learned threshold."""


class Rows(NamedTuple):
    """What was taken out of each row of the input, and is put back at the end."""

    shift: Tensor
    """(n, 1): added last."""
    factor: Tensor
    """(n, 1): what the reconstruction is multiplied by first."""


class Codes(NamedTuple):
    """What the encoder keeps of each token; where fewer than `k` latents fire, the rest is 0.

    Rules without a fixed k give as many columns as the busiest token of the batch needs.
    """

    acts: Tensor
    """(n, k), largest first; >= 0 but for the signed TopK, AbsTopK and GELU."""
    latents: Tensor
    """(n, k), int64 in [0, n_latents); all different within a row."""
    rows: Rows | None = None
    """Of SAEs with an `input_norm` alone: without it `decode` does not know the input's scale. Keep
    it where you change activations: `codes._replace(acts=...)`."""

    def dense(self, n_latents: int) -> Tensor:
        """The same activations as a (n, n_latents) matrix with zeros elsewhere."""
        dense = self.acts.new_zeros(len(self.acts), n_latents)
        return dense.scatter_add(1, self.latents, self.acts)  # a padding act of 0 adds nothing

    def first(self, n_latents: int) -> Codes:
        """Only the activations of the first `n_latents` latents; those of the others become 0."""
        acts = self.acts.where(self.latents < n_latents, 0)
        acts, order = acts.sort(dim=1, descending=True, stable=True)
        return self._replace(acts=acts, latents=self.latents.gather(1, order))


@dataclass(frozen=True)
class TopK:
    """ReLU, then only the largest activations of each token (Gao et al. 2024)."""

    k: int = 32
    """Latents kept per token. Larger k reconstructs better and explains worse."""
    signed: bool = False
    """No ReLU: negative values can be among the k largest."""

    def __post_init__(self) -> None:
        _require_k(self.k)

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents); gradients reach only what is kept and > 0."""
        return self.train(pre, self.k)

    def train(self, pre: Tensor, k: int) -> Codes:
        """The same with `k` latents a token, or all where there are fewer."""
        # ReLU after the selection keeps the same set, and costs (n, k) instead of (n, n_latents).
        kept = torch.topk(pre, min(k, pre.shape[1]), dim=1, sorted=True)
        return Codes(kept.values if self.signed else kept.values.relu(), kept.indices)


@dataclass(frozen=True, eq=False)
class BatchTopK:
    """ReLU, then only the largest activations of a whole batch (Bussmann et al. 2024).

    A token of many parts may keep more latents than a plain one. A finished SAE must not let
    tokens depend on their neighbours: there a threshold decides, learned in training.
    """

    k: int
    """Latents kept per token, on average over a batch."""
    threshold: Tensor
    """(), mean over the last batches of the smallest activation kept; 0: none seen yet."""

    def __post_init__(self) -> None:
        _require_k(self.k)

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents) what reaches the threshold."""
        return codes_of(self.reaching(pre, self.threshold))

    def train(self, pre: Tensor, k: int) -> Tensor:
        """Activations (n, n_latents), 0 where not kept; equal ones at the border are all kept."""
        return self.reaching(pre, self.border(pre, k))

    @torch.no_grad()
    def border(
        self, pre: Tensor, k: int, reduce: Callable[[list[Tensor]], None] | None = None
    ) -> Tensor:
        """The (k n)-th largest activation of a batch (): 0 where fewer fire.

        With `reduce`, which sums over processes, the batch is what all of them hold.
        """
        acts = pre.detach().relu().flatten()
        if reduce is not None:
            return _border_of_all(acts, k * len(pre), reduce)
        if k * len(pre) >= acts.numel():
            return acts.new_zeros(())
        return torch.topk(acts, k * len(pre), sorted=False).values.min()

    def reaching(self, pre: Tensor, border: Tensor) -> Tensor:
        """Activations (n, n_latents): those above 0 that are at least `border`, else 0."""
        return pre.where((pre >= border) & (pre > 0), 0)

    @torch.no_grad()
    def learn(self, border: Tensor) -> None:
        """Move the threshold, in place, towards a batch's border."""
        near = torch.lerp(self.threshold, border, MEMORY)
        self.threshold.copy_(torch.where(self.threshold == 0, border, near))


@dataclass(frozen=True, eq=False)
class JumpReLU:
    """What exceeds the latent's own threshold, unchanged (Rajamanoharan et al. 2024).

    The threshold has no true gradient. As in the paper, the mean over tokens is taken for a smooth
    function of it, whose slope is estimated from the tokens in a window of width `bandwidth`.
    """

    log_threshold: Tensor
    """(n_latents,), natural logarithm."""
    bandwidth: float = BANDWIDTH

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents) what exceeds its threshold."""
        return codes_of(pre.where(pre > self._threshold(pre), 0))

    def train(self, pre: Tensor, k: int = 0) -> Tensor:
        """Activations (n, n_latents), 0 where not kept. There is no `k`: it plays no part."""
        threshold = self._threshold(pre)
        acts = pre.where(pre > threshold, 0)
        return acts + self._slope(pre, threshold, threshold.detach())

    def n_active(self, pre: Tensor) -> Tensor:
        """Latents that each token keeps (n,), with a gradient for the thresholds alone."""
        threshold = self._threshold(pre)
        step = (pre > threshold).to(pre.dtype)
        return (step + self._slope(pre, threshold, 1.0)).sum(1)

    def _threshold(self, pre: Tensor) -> Tensor:
        return self.log_threshold[: pre.shape[1]].exp()

    def _slope(self, pre: Tensor, threshold: Tensor, height: Tensor | float) -> Tensor:
        """Zeros (n, n_latents) whose slope by the threshold is -height / bandwidth in the window.

        `height` is that of the jump. Pre-activations get no gradient from here.
        """
        near = (pre.detach() - threshold.detach()).abs() < self.bandwidth / 2
        return near * (height / self.bandwidth) * (threshold.detach() - threshold)


@dataclass(frozen=True)
class ReLU:
    """All that is above 0; an L1 penalty in training makes it sparse."""

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents) what is above 0."""
        return codes_of(pre.relu())

    def train(self, pre: Tensor, k: int = 0) -> Tensor:
        """Activations (n, n_latents). There is no `k`: it plays no part."""
        return pre.relu()


@dataclass(frozen=True)
class AbsTopK:
    """The values of largest size of each token, with their signs (arXiv 2510.00404)."""

    k: int

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents)."""
        return self.train(pre, self.k)

    def train(self, pre: Tensor, k: int) -> Codes:
        """The same with `k` latents a token."""
        latents = torch.topk(pre.abs(), min(k, pre.shape[1]), dim=1).indices
        return _largest_first(pre.gather(1, latents), latents)


@dataclass(frozen=True)
class GroupMax:
    """ReLU, then the largest activation of each of k groups of neighbouring latents (sparsify)."""

    k: int

    def keep(self, pre: Tensor) -> Codes:
        """Select from pre-activations (n, n_latents)."""
        return self.train(pre, self.k)

    def train(self, pre: Tensor, k: int) -> Codes:
        """The same with `k` groups. Raises `ValueError` where k does not divide the latents."""
        size, rest = divmod(pre.shape[1], k)
        if rest:
            raise ValueError(f"{pre.shape[1]} latents are not {k} groups of equal size")
        best = pre.relu().view(len(pre), k, size).max(dim=2)
        first = torch.arange(0, pre.shape[1], size, device=pre.device)
        return _largest_first(best.values, best.indices + first)


@dataclass(frozen=True)
class Smooth:
    """One of `SMOOTH`: all latents are active on each token."""

    name: str

    def keep(self, pre: Tensor) -> Codes:
        """Activations of pre-activations (n, n_latents): all of them."""
        acts = self.train(pre)
        return _largest_first(acts, torch.arange(pre.shape[1], device=pre.device).expand_as(pre))

    def train(self, pre: Tensor, k: int = 0) -> Tensor:
        """Activations (n, n_latents). There is no `k`: it plays no part."""
        acts: Tensor = SMOOTH[self.name](pre)
        return acts


Rule = TopK | AbsTopK | GroupMax | BatchTopK | JumpReLU | ReLU | Smooth


def _largest_first(acts: Tensor, latents: Tensor) -> Codes:
    kept = acts.sort(dim=1, descending=True)
    return Codes(kept.values, latents.gather(1, kept.indices))


def codes_of(acts: Tensor) -> Codes:
    """Activations (n, n_latents) >= 0 as codes, as wide as the busiest token needs, 1 at least."""
    width = int((acts > 0).sum(1).max()) if len(acts) else 1
    kept = torch.topk(acts, max(1, width), dim=1, sorted=True)
    return Codes(kept.values, kept.indices)


def _border_of_all(acts: Tensor, n_kept: int, reduce: Callable[[list[Tensor]], None]) -> Tensor:
    """The `n_kept`-th largest of activations (m,) >= 0, both summed over all processes.

    Found bit by bit from counts alone: floats that are not negative are in the order of their bits.
    """
    whole = torch.int64 if acts.dtype == torch.float64 else torch.int32
    bits = acts.view(whole)
    wanted = torch.tensor([n_kept], device=acts.device)
    reduce([wanted])
    border = torch.zeros(1, dtype=whole, device=acts.device)
    for place in range(torch.iinfo(whole).bits - 2, -1, -1):
        trial = border | (1 << place)
        count = (bits >= trial).sum().view(1)
        reduce([count])
        border = trial.where(count >= wanted, border)
    return border.view(acts.dtype).squeeze()


def _require_k(k: int) -> None:
    if k < 1:
        raise UserError(f"k is {k}; at least one latent must be kept per token")
