from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sae.losses import auxk_loss, fvu

N, D, L, K_AUX = 16, 6, 10, 3


@pytest.fixture
def parts() -> dict[str, Tensor]:
    """Everything an AuxK step needs, in float64; latents 2, 3, 5, 7 and 8 are dead."""
    generator = torch.Generator().manual_seed(0)
    draw = {"x": (N, D), "residual": (N, D), "W_enc": (L, D), "b_enc": (L,), "W_dec": (L, D)}
    parts = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in draw.items()
    }
    for name in ("W_enc", "b_enc", "W_dec", "residual"):
        parts[name].requires_grad_()
    parts["dead"] = torch.zeros(L, dtype=torch.bool)
    parts["dead"][[2, 3, 5, 7, 8]] = True
    return parts


def loss_of(parts: dict[str, Tensor], k_aux: int = K_AUX) -> Tensor:
    pre = parts["x"] @ parts["W_enc"].T + parts["b_enc"]
    return auxk_loss(parts["residual"], pre, parts["W_dec"], parts["dead"], k_aux)


def reference(parts: dict[str, Tensor]) -> Tensor:
    """The same, token by token and dense."""
    error, total = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    residual = parts["residual"].detach()
    for x, r in zip(parts["x"], residual, strict=True):
        pre = parts["W_enc"] @ x + parts["b_enc"]
        candidates = [latent for latent in range(L) if parts["dead"][latent]]
        strongest = sorted(candidates, key=lambda latent: -pre[latent].item())[:K_AUX]
        rebuilt = torch.zeros(D, dtype=torch.float64)
        for latent in strongest:
            act = pre[latent] if pre[latent] > 0 else 0.1 * pre[latent]
            rebuilt = rebuilt + act * parts["W_dec"][latent]
        error = error + (r - rebuilt).square().sum()
        total = total + (r - residual.mean(0)).square().sum()
    return error / total


def test_fvu_is_0_when_perfect_and_1_at_the_mean() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 8.0]])
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand(2, 2)) == 1
    assert fvu(x, x + torch.tensor([1.0, 0.0])) == pytest.approx(2 / 34)


def test_fvu_does_not_change_with_scale_and_place() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(fvu(7 * x + 3, 7 * x_hat + 3), fvu(x, x_hat))


def test_auxk_and_its_gradients_equal_the_reference(parts: dict[str, Tensor]) -> None:
    names = ["W_enc", "b_enc", "W_dec"]
    ours, expected = loss_of(parts), reference(parts)
    torch.testing.assert_close(ours, expected)
    for name, got, wanted in zip(
        names,
        torch.autograd.grad(ours, [parts[name] for name in names]),
        torch.autograd.grad(expected, [parts[name] for name in names]),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, msg=name)
        assert bool((got[parts["dead"]] != 0).flatten(1).any(1).all() if got.ndim == 2 else True)
        assert not got[~parts["dead"]].any(), name


def test_auxk_takes_the_residual_as_a_constant(parts: dict[str, Tensor]) -> None:
    inputs = [parts["residual"], parts["W_dec"]]
    wrt_residual, wrt_W_dec = torch.autograd.grad(loss_of(parts), inputs, allow_unused=True)
    assert wrt_residual is None
    assert wrt_W_dec is not None


def test_auxk_is_0_when_dead_latents_hold_the_residual() -> None:
    """A b_dec added to what they rebuild would show here: the residual has none."""
    pre = torch.tensor([[3.0, 1.0, -9.0], [-9.0, 2.0, 5.0]])
    W_dec = torch.eye(3)
    residual = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    dead = torch.tensor([True, False, True])
    assert auxk_loss(residual, pre, W_dec, dead, k_aux=1) == 0


def test_auxk_reaches_a_latent_that_is_below_0_for_every_token(parts: dict[str, Tensor]) -> None:
    parts["b_enc"].data[:] = -100.0
    (gradient,) = torch.autograd.grad(loss_of(parts, k_aux=5), parts["W_enc"])
    assert (gradient[parts["dead"]].norm(dim=1) > 0).all()


def test_auxk_without_dead_latents_is_0(parts: dict[str, Tensor]) -> None:
    parts["dead"][:] = False
    assert loss_of(parts) == 0


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6])
def test_auxk_stays_small_when_nothing_is_left_to_rebuild(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    pre = 1e-2 * torch.randn(N, L, generator=generator).requires_grad_()
    residual = size * torch.randn(N, D, generator=generator)
    W_dec = torch.eye(L)[:, :D]
    loss = auxk_loss(residual, pre, W_dec, torch.ones(L, dtype=torch.bool), K_AUX)
    (gradient,) = torch.autograd.grad(loss, pre)
    assert loss < 2
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10
