"""Every rule and loss: its parts, its gradient, its draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae.model.sae import SAE
from sae.model.sparsity import Codes
from sae.training.engines.interface import Objective
from sae.training.engines.losses import (
    auxk_loss,
    fvu,
    patchsae_ghost_loss,
    ttt_ghost_loss,
)
from sae.training.engines.objective import Draws, costs_of
from sae.training.engines.plain import PlainEngine
from tests.support.sae.gradients import gradient_error
from tests.support.sae.plain_steps import (
    NO_DRAWS,
    NONE_DEAD,
    PLAIN,
    SOME_DEAD,
    VARIANTS,
    K,
    L,
    model_of,
)


def dense_of(kept: Codes | Tensor) -> Tensor:
    return kept.dense(L) if isinstance(kept, Codes) else kept


def loss_of(model: SAE, objective: Objective, x: Tensor, dead: Tensor = NONE_DEAD) -> Tensor:
    return costs_of(model, objective, x, K, dead, NO_DRAWS).loss


@pytest.mark.parametrize("name", VARIANTS)
def test_every_rule_and_loss_has_the_gradient_of_finite_differences(name: str, x: Tensor) -> None:
    """Thresholds apart, whose gradient is an estimate: see test_sparsity."""
    activation, objective = VARIANTS[name]
    model = model_of(activation)
    values = [model.W_enc, model.b_enc, model.W_dec, model.b_dec]
    assert gradient_error(lambda: loss_of(model, objective, x), values) < 1e-6


@pytest.mark.parametrize("name", VARIANTS)
def test_dead_latents_get_a_gradient_in_the_encoder_and_decoder(name: str, x: Tensor) -> None:
    activation, objective = VARIANTS[name]
    model = model_of(activation)
    with torch.no_grad():
        if objective.auxk == "total":  # of sparsify: what is below 0 rebuilds nothing
            model.b_enc[~SOME_DEAD] += 2
        else:
            model.b_enc[SOME_DEAD] -= 2  # silent, but not out of reach
        model.W_enc[SOME_DEAD] *= 0.1
    without = costs_of(model, objective, x, K, NONE_DEAD, NO_DRAWS)
    assert not dense_of(without.kept)[:, SOME_DEAD].any()
    assert without.aux == 0
    rows = [model.W_enc, model.W_dec]
    for gradient in torch.autograd.grad(without.loss, rows):
        assert not gradient[SOME_DEAD].any()
    for gradient in torch.autograd.grad(loss_of(model, objective, x, SOME_DEAD), rows):
        assert (gradient[SOME_DEAD].norm(dim=1) > 0).all()


def test_the_loss_is_the_sum_of_its_weighted_parts(x: Tensor) -> None:
    objective = replace(PLAIN, alpha=0.5, multi_k=2, l1=0.1)
    model = model_of()
    pre = model.pre_of_centred(x)
    codes = model.sparsity.train(pre, K)
    assert isinstance(codes, Codes)
    x_hat, more = model.decode_centred(codes), model.sparsity.train(pre, 2 * K)
    assert isinstance(more, Codes)
    aux = auxk_loss(x - x_hat, pre, model.W_dec, SOME_DEAD, 4)
    expected = fvu(x, x_hat) + fvu(x, model.decode_centred(more)) / 8
    expected = expected + 0.5 * aux + 0.1 * codes.acts.sum(1).mean()
    costs = costs_of(model, objective, x, K, SOME_DEAD, NO_DRAWS)
    torch.testing.assert_close(costs.loss, expected)
    torch.testing.assert_close(costs.fvu, fvu(x, x_hat))
    torch.testing.assert_close(costs.aux, aux)


@pytest.mark.parametrize("ghost", ["ttt", "patchsae"])
def test_a_ghost_loss_stands_in_for_auxk(ghost: str, x: Tensor) -> None:
    objective = replace(PLAIN, ghost=ghost, ghost_weight=3.0)  # type: ignore[arg-type]
    model = model_of()
    pre = model.pre_of_centred(x)
    x_hat = model.decode_centred(model.sparsity.keep(pre))
    if ghost == "ttt":
        wanted = ttt_ghost_loss(x - x_hat, pre, model.W_dec, model.b_dec, SOME_DEAD)
    else:
        wanted = patchsae_ghost_loss(x, x_hat, pre, model.W_dec, SOME_DEAD)
    costs = costs_of(model, objective, x, K, SOME_DEAD, NO_DRAWS)
    torch.testing.assert_close(costs.aux, wanted)
    torch.testing.assert_close(costs.loss, fvu(x, x_hat) + 3 * wanted)


def test_the_l0_penalty_counts_latents_and_moves_thresholds_alone(x: Tensor) -> None:
    model = model_of("jumprelu")
    with_l0 = costs_of(model, replace(PLAIN, l0=0.5), x, 0, NONE_DEAD, NO_DRAWS)
    without = costs_of(model, PLAIN, x, 0, NONE_DEAD, NO_DRAWS)
    n_active = (dense_of(with_l0.kept) > 0).sum(1).double().mean()
    torch.testing.assert_close(with_l0.loss - without.loss, 0.5 * n_active)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(with_l0.loss - without.loss, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        assert (gradient.abs().max() > 1e-3) == (name == "log_threshold"), name


@pytest.mark.parametrize("activation", ["topk", "relu"])
def test_matryoshka_is_the_mean_over_prefixes_of_the_truncated_codes(
    activation: str, x: Tensor
) -> None:
    model = model_of(activation)
    costs = costs_of(model, replace(PLAIN, prefixes=(2, 7, L)), x, K, NONE_DEAD, NO_DRAWS)
    acts = dense_of(costs.kept)
    each = [fvu(x, acts[:, :p] @ model.W_dec[:p] + model.b_dec) for p in (2, 7, L)]
    torch.testing.assert_close(costs.loss, torch.stack(each).mean())
    torch.testing.assert_close(costs.fvu, each[-1])
    whole = costs_of(model, replace(PLAIN, prefixes=(L,)), x, K, NONE_DEAD, NO_DRAWS)
    torch.testing.assert_close(whole.loss, each[-1])


def test_dropout_keeps_the_mean_and_leaves_out_its_share() -> None:
    pre = torch.ones(200, 50)
    dropped = Draws(3, 7).dropped(pre, 0.25)
    assert dropped.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(dropped, Draws(3, 7).dropped(pre, 0.25))
    for other in (Draws(3, 8), Draws(4, 7)):
        assert not torch.equal(dropped, other.dropped(pre, 0.25))
    assert Draws(3, 7).dropped(pre, 0) is pre


def test_dropout_acts_on_what_the_rule_sees(x: Tensor) -> None:
    model = model_of("relu")
    draws = Draws(0, 5)
    costs = costs_of(model, replace(PLAIN, dropout=0.5), x, 0, NONE_DEAD, draws)
    torch.testing.assert_close(costs.kept, draws.dropped(model.pre_of_centred(x), 0.5).relu())


def test_random_prefixes_are_new_at_each_step() -> None:
    objective = replace(PLAIN, n_random_prefixes=4)
    drawn = [Draws(0, step).prefixes(objective, 1000) for step in range(10)]
    assert len(set(drawn)) == 10
    assert (
        drawn[3] == Draws(0, 3).prefixes(objective, 1000) != Draws(1, 3).prefixes(objective, 1000)
    )
    assert Draws(0, 0).prefixes(PLAIN, 1000) == ()


def test_each_step_draws_anew_by_the_seed(x: Tensor) -> None:
    model, objective = model_of(), replace(PLAIN, dropout=0.5, n_random_prefixes=4)
    engine = PlainEngine(model, objective, seed=5)
    for step in range(3):
        wanted = costs_of(model, objective, x, K, NONE_DEAD, Draws(5, step)).loss
        assert engine.step(x, k=K, lr=0.01, dead=NONE_DEAD).loss == wanted
