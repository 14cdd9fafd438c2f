"""Tokens and their codes -> running sums, and the figures that they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.model.sae import SAE, Codes

WEAK_ACT = 1e-3
ALMOST_DEAD_RATE = 1e-4
"""A latent that fires on no more of the tokens than this is almost dead: too rare to be studied."""
DENSE_RATE = 0.1
"""A latent that fires on more of the tokens than this is dense: too common to mean one thing."""


@dataclass(frozen=True)
class Fit:
    """How an SAE does on some tokens."""

    n_images: int
    n_tokens: int
    fvu: float
    """Fraction of variance unexplained, about these tokens' own mean: 0 is perfect."""
    r2: float
    """1 - fvu: the variances of all dimensions are summed before they are divided."""
    nmse: float
    """Squared error over the squared norm of the raw embeddings, about 0: a large common mean
    flatters it. The fvu is the honest one; this is for comparison with papers that have no other.
    """
    cosine: float
    """Mean cosine of a raw embedding and its reconstruction. A large common mean flatters it."""
    l0: float
    """Active latents per token: those whose activation is not 0."""
    l0_1e3: float
    """Latents of more than 0.001 per token."""
    dead: float
    """Share of the latents that fire on none of these tokens: few tokens make it large."""
    almost_dead: float
    """Share of the latents that fire, but on at most 1 of 10,000 of these tokens, or on one."""
    dense: float
    """Share of the latents that fire on more than a tenth of these tokens."""


class FitSums:
    """Running sums over tokens, from which a `Fit` follows; two can be added."""

    def __init__(self, model: SAE) -> None:
        self.model = model
        device = model.W_dec.device
        self.n_images = 0
        self.n_tokens = 0
        # Sums of centred values: the variance is then no small difference of large numbers.
        self.x = torch.zeros(model.d, dtype=torch.float64)
        self.x_square = 0.0
        self.raw_square = 0.0
        self.error_square = 0.0
        self.cosine = 0.0
        self.n_weak = 0
        self.n_active = torch.zeros(model.n_latents, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, x: Tensor, codes: Codes) -> None:
        """Take in raw tokens (n, d), float32, and what the encoder keeps of them."""
        x_hat = self.model.rebuild(x, codes)
        centred = self._centred(x)
        self.n_tokens += len(x)
        self.x += centred.sum(0).cpu().double()
        self.x_square += float(centred.square().sum())
        self.raw_square += float((x / self._unit()).square().sum())
        self.error_square += float((self._centred(x_hat) - centred).square().sum())
        self.cosine += float(F.cosine_similarity(x, x_hat, dim=1).sum())
        self.n_weak += int((codes.acts.abs() > WEAK_ACT).sum())
        fired = codes.latents[codes.acts != 0]  # a signed rule keeps negative ones too
        self.n_active += torch.bincount(fired, minlength=self.model.n_latents)

    def add(self, other: FitSums) -> None:
        """Take in another part's sums."""
        names = ("n_images", "n_tokens", "x_square", "raw_square", "error_square", "cosine")
        for name in (*names, "n_weak"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.x = self.x + other.x
        self.n_active = self.n_active + other.n_active

    def fit(self) -> Fit:
        """The figures; fvu and r2 are NaN where all tokens are equal, nmse where all are 0."""
        n = self.n_tokens
        variance = self.x_square - float(self.x.square().sum()) / n
        some = variance > 1e-6 * self.x_square  # less is rounding
        fvu = self.error_square / variance if some else float("nan")
        rare = (self.n_active > 0) & (self.n_active <= max(1.0, ALMOST_DEAD_RATE * n))
        return Fit(
            n_images=self.n_images,
            n_tokens=n,
            fvu=fvu,
            r2=1 - fvu,
            nmse=self.error_square / self.raw_square if self.raw_square else float("nan"),
            cosine=self.cosine / n,
            l0=int(self.n_active.sum()) / n,
            l0_1e3=self.n_weak / n,
            dead=float((self.n_active == 0).float().mean()),
            almost_dead=float(rare.float().mean()),
            dense=float((self.n_active > DENSE_RATE * n).float().mean()),
        )

    def frequency(self) -> NDArray[np.float64]:
        """(n_latents,) share of the tokens on which each latent fires."""
        counts: NDArray[np.float64] = self.n_active.cpu().double().numpy()
        return counts / max(1, self.n_tokens)

    def _centred(self, x: Tensor) -> Tensor:
        """Where errors are measured: raw where the SAE gives each row a length of its own."""
        return x if self.model.config.input_norm else self.model.centre(x)

    def _unit(self) -> Tensor | float:
        return 1.0 if self.model.config.input_norm else self.model.scale
