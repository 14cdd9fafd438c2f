"""Checkpoints that peers wrote, with the latents and reconstruction that their own code gives."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor

from sae.model.sae import SAE
from tests.support.paths import DATA


def expected(name: str) -> dict[str, Tensor]:
    """`x`, `latents` and `reconstruction` of a fixture."""
    return load_file(DATA / name / "expected.safetensors")


def require_same(model: SAE, x: Tensor, latents: Tensor, x_hat: Tensor | None = None) -> None:
    """The same latents are active, and all values are equal to 1e-5 of the largest."""
    with torch.no_grad():
        ours_hat, codes = model(x)
        decoded = model.decode(codes)
    ours = codes.dense(model.n_latents)
    assert torch.equal(ours != 0, latents != 0)
    assert (ours - latents).abs().max() <= 1e-5 * latents.abs().max()
    assert torch.equal(decoded, ours_hat)
    if x_hat is not None:
        assert (ours_hat - x_hat).abs().max() <= 1e-5 * x_hat.abs().max()
