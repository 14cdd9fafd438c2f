from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sae.training.engines.losses import (
    auxk_loss,
    floor_variance,
    fvu,
    l1_norm,
    patchsae_ghost_loss,
    ttt_ghost_loss,
    variance_of,
)
from tests.support.sae.gradients import gradient_error

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


def pre_of(parts: dict[str, Tensor]) -> Tensor:
    return parts["x"] @ parts["W_enc"].T + parts["b_enc"]


def test_the_gradient_of_fvu_equals_finite_differences(parts: dict[str, Tensor]) -> None:
    x_hat = parts["residual"]
    assert gradient_error(lambda: fvu(parts["x"], x_hat), [x_hat]) < 1e-6


def test_the_gradient_of_auxk_equals_finite_differences_and_reaches_the_encoder(
    parts: dict[str, Tensor],
) -> None:
    """`gradient_error` refuses to compare where there is no slope."""
    values = [parts[name] for name in ("W_enc", "b_enc", "W_dec")]
    assert gradient_error(lambda: loss_of(parts), values) < 1e-6


def test_parts_of_a_batch_add_up_to_the_batch(parts: dict[str, Tensor]) -> None:
    x, residual, pre = parts["x"], parts["residual"].detach(), pre_of(parts)
    W_dec, dead = parts["W_dec"], parts["dead"]
    b_dec = parts["b_enc"][:D]
    cuts = [slice(0, 5), slice(5, 6), slice(6, N)]
    whole = variance_of(x)
    left = floor_variance(variance_of(residual), N, D)
    pairs = [
        (fvu(x, residual), [fvu(x[c], residual[c], whole) for c in cuts]),
        (
            auxk_loss(residual, pre, W_dec, dead, K_AUX),
            [auxk_loss(residual[c], pre[c], W_dec, dead, K_AUX, left) for c in cuts],
        ),
        (
            ttt_ghost_loss(residual, pre, W_dec, b_dec, dead),
            [ttt_ghost_loss(residual[c], pre[c], W_dec, b_dec, dead, N) for c in cuts],
        ),
        (
            patchsae_ghost_loss(x, residual, pre, W_dec, dead),
            [patchsae_ghost_loss(x[c], residual[c], pre[c], W_dec, dead, N) for c in cuts],
        ),
        (l1_norm(pre), [l1_norm(pre[c], N) for c in cuts]),
    ]
    for at_once, shares in pairs:
        torch.testing.assert_close(sum(shares), at_once)


def test_the_ttt_ghost_is_linear_and_takes_b_dec_along() -> None:
    pre = torch.tensor([[2.0, -1.0, 9.0]])
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    residual, b_dec = torch.tensor([[1.0, 1.0]]), torch.tensor([0.0, 0.5])
    dead = torch.tensor([True, True, False])
    # It rebuilds (2, -1 + .5), and misses (1, 1) by (1, -1.5).
    assert ttt_ghost_loss(residual, pre, W_dec, b_dec, dead) == pytest.approx((1 + 2.25) / 2)
    assert ttt_ghost_loss(residual, pre, W_dec, b_dec, ~dead & dead) == 0


def test_the_gradient_of_the_ttt_ghost_equals_finite_differences(parts: dict[str, Tensor]) -> None:
    b_dec = parts["residual"].detach()[0].clone().requires_grad_()
    values = [parts["W_enc"], parts["b_enc"], parts["W_dec"], b_dec]

    def loss() -> Tensor:
        return ttt_ghost_loss(
            parts["residual"], pre_of(parts), parts["W_dec"], b_dec, parts["dead"]
        )

    assert gradient_error(loss, values) < 1e-6
    wrt_W_enc, wrt_residual = torch.autograd.grad(
        loss(), [parts["W_enc"], parts["residual"]], allow_unused=True
    )
    assert wrt_residual is None
    assert (wrt_W_enc[parts["dead"]].norm(dim=1) > 0).all()
    assert not wrt_W_enc[~parts["dead"]].any()


def test_the_patchsae_ghost_of_one_token_by_hand() -> None:
    x, x_hat = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 2.0]])  # |x| 5, residual (0, 2)
    pre, W_dec = torch.zeros(1, 2, requires_grad=True), torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    dead = torch.tensor([True, False])
    loss = patchsae_ghost_loss(x, x_hat, pre, W_dec, dead)
    # exp(0) (.6, .8) is brought to half the residual's length, 1: error (.6^2, 1.2^2) / 2; each is
    # brought to the reconstruction's, (0, 4) / 5. Only the second has any.
    assert loss.item() == pytest.approx(0.8 / 2, rel=1e-5)
    loss.backward()
    # d loss / d pre = mean of .8 / .72 * d (1.2^2 / 2) / d pre, where d g / d pre = .8.
    assert pre.grad is not None
    assert pre.grad[0, 0].item() == pytest.approx(0.5 * 0.8 / 0.72 * -1.2 * 0.8, rel=1e-5)
    assert pre.grad[0, 1] == 0


def test_the_gradient_of_the_patchsae_ghost_equals_finite_differences_at_constant_scales(
    parts: dict[str, Tensor],
) -> None:
    x, x_hat, dead = parts["x"], parts["x"] - parts["residual"].detach(), parts["dead"]
    residual = parts["residual"].detach()
    which = dead.nonzero().squeeze(1)

    def scales() -> tuple[Tensor, Tensor]:
        ghost = pre_of(parts)[:, which].exp() @ parts["W_dec"][which]
        length = residual.norm(dim=1, keepdim=True)
        half = length / (2 * ghost.norm(dim=1, keepdim=True) + 1e-6)
        error = (half * ghost - residual).square() / length
        main = residual.square() / x.norm(dim=1, keepdim=True)
        return half.detach(), (main / (error + 1e-6)).detach()

    half, size = scales()

    def at_constant_scales() -> Tensor:
        ghost = half * (pre_of(parts)[:, which].exp() @ parts["W_dec"][which])
        error = (ghost - residual).square() / residual.norm(dim=1, keepdim=True)
        return (size * error).mean()

    values = [parts[name] for name in ("W_enc", "b_enc", "W_dec")]
    ours = patchsae_ghost_loss(x, x_hat, pre_of(parts), parts["W_dec"], dead)
    torch.testing.assert_close(ours, at_constant_scales())
    for got, wanted in zip(
        torch.autograd.grad(ours, values),
        torch.autograd.grad(at_constant_scales(), values),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-14)
    assert gradient_error(at_constant_scales, values) < 1e-6


def test_the_patchsae_ghost_is_finite_where_a_token_is_rebuilt_exactly(
    parts: dict[str, Tensor],
) -> None:
    x = parts["x"].clone()
    x[0] = 0
    pre = pre_of(parts)
    loss = patchsae_ghost_loss(x, x.clone(), pre, parts["W_dec"], parts["dead"])
    (gradient,) = torch.autograd.grad(loss, parts["W_enc"])
    assert loss == 0
    assert not gradient.isnan().any()
    nothing = patchsae_ghost_loss(x, x + 1, pre, parts["W_dec"], parts["dead"] & False)
    assert nothing == 0


def test_the_l1_norm_is_a_mean_over_tokens_and_counts_negative_values_too() -> None:
    acts = torch.tensor([[1.0, -2.0], [0.0, 5.0]], dtype=torch.float64, requires_grad=True)
    assert l1_norm(acts) == 4
    assert l1_norm(acts, n=4) == 2
    kept = torch.tensor([[1.0, -2.0], [0.5, 5.0]], dtype=torch.float64, requires_grad=True)
    assert gradient_error(lambda: l1_norm(kept), [kept]) < 1e-6
