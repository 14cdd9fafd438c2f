"""Two engines on equal models and equal batches, side by side."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.model.sae import SAE, SAEConfig
from sae.training.engines.interface import Engine, StepResult

LR = 1e-3


def random_model(d: int, n_latents: int, k: int, seed: int = 0) -> SAE:
    """An SAE in the middle of training: encoder and decoder differ, no bias is 0."""
    generator = torch.Generator().manual_seed(seed)
    model = SAE(SAEConfig(d=d, n_latents=n_latents, k=k))
    with torch.no_grad():
        rows = F.normalize(torch.randn(n_latents, d, generator=generator), dim=1)
        model.W_dec.copy_(rows)
        model.W_enc.copy_(rows + 0.3 / d**0.5 * torch.randn(n_latents, d, generator=generator))
        model.b_enc.copy_(0.1 * torch.randn(n_latents, generator=generator))
        model.b_dec.copy_(0.1 * torch.randn(d, generator=generator))
    return model


def random_batches(n: int, d: int, count: int, seed: int = 1) -> Tensor:
    """Batches (count, n, d) of centred and scaled tokens."""
    return torch.randn(count, n, d, generator=torch.Generator().manual_seed(seed))


def mask(n_latents: int, latents: Sequence[int]) -> Tensor:
    """A mask (n_latents,) of these latents."""
    out = torch.zeros(n_latents, dtype=torch.bool)
    out[list(latents)] = True
    return out


def assert_same_steps(
    ours: Engine,
    theirs: Engine,
    models: tuple[SAE, SAE],
    batches: Sequence[Tensor],
    dead: Tensor,
    ks: Sequence[int],
) -> None:
    """Step both on each batch, with each k; figures, weights and moments must agree."""
    for number, (x, k) in enumerate(zip(batches, ks, strict=True)):
        lr = LR * (number + 1)
        assert_same_result(*(e.step(x, k=k, lr=lr, dead=dead) for e in (ours, theirs)))
        assert_same_weights(*models)
    assert_same_state(ours, theirs)


def assert_same_result(ours: StepResult, theirs: StepResult) -> None:
    for name in ("loss", "fvu", "aux", "l0"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), msg=name)
    assert torch.equal(ours.fired, theirs.fired)


def assert_same_weights(ours: SAE, theirs: SAE, tolerance: float = 1e-5) -> None:
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=lambda text, n=name: n + text)


def assert_same_state(ours: Engine, theirs: Engine) -> None:
    state = theirs.state()
    assert ours.state().keys() == state.keys()
    for name, value in ours.state().items():
        largest = state[name].double().abs().max()
        assert (value.double() - state[name].double()).abs().max() <= 1e-5 * largest, name


def twins(model: SAE) -> tuple[SAE, SAE]:
    return copy.deepcopy(model), copy.deepcopy(model)
