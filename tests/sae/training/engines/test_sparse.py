"""The sparse engine: sampled products, and steps equal to the plain engine's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.model.sae import SAE
from sae.model.sparsity import BatchTopK
from sae.training.engines.interface import Objective, StepResult
from sae.training.engines.losses import auxk_loss, floor_variance, variance_of
from sae.training.engines.plain import PlainEngine
from sae.training.engines.sparse import products
from sae.training.engines.sparse.auxk import Rows, revival
from sae.training.engines.sparse.encode import strongest_of_batch
from sae.training.engines.sparse.engine import Selection, SparseEngine
from sae.training.engines.sparse.products import dots, meetings, mix, product, sums, totals
from tests.support.sae.engine_pairs import (
    LR,
    assert_same_result,
    assert_same_state,
    assert_same_weights,
)
from tests.support.sae.gradients import Reduce, together
from tests.support.sae.sparse_steps import N_LATENTS, D, K, N, random, untrained

K_AUX = 9


def dead_latents(n_dead: int, n_latents: int = N_LATENTS) -> Tensor:
    order = torch.randperm(n_latents, generator=torch.Generator().manual_seed(4))
    return torch.zeros(n_latents, dtype=torch.bool).index_fill(0, order[:n_dead], True)


Batch = Callable[[int], Tensor]


def fresh(step: int) -> Tensor:
    return random(N, D, seed=10 + step)


def require_equal_steps(
    model: SAE,
    batch: Batch = fresh,
    n_dead: int = 0,
    selection: Selection = "float32",
    ks: tuple[int, ...] = (K, K, K, K),
) -> StepResult:
    """Step with both engines on the same batches: all that they leave behind must be close."""
    objective, dead = Objective(k_aux=K_AUX), dead_latents(n_dead, model.n_latents)
    plain = PlainEngine(copy.deepcopy(model), objective)
    sparse = SparseEngine(model, objective, selection=selection)
    for step, k in enumerate(ks):
        slow = plain.step(batch(step), k=k, lr=LR, dead=dead)
        fast = sparse.step(batch(step), k=k, lr=LR, dead=dead)
        assert_same_result(fast, slow)
    require_close(sparse, plain)
    return fast


def require_close(fast: SparseEngine, slow: PlainEngine | SparseEngine) -> None:
    # Adam's first steps are lr long whatever the gradient: next to 0 its rounding shows.
    assert_same_weights(fast.model, slow.model, tolerance=0.02 * LR)
    assert_same_state(fast, slow)


def test_sampled_products_equal_dense_ones() -> None:
    latents = torch.stack(
        [torch.randperm(20, generator=torch.Generator().manual_seed(n))[:3] for n in range(11)]
    )
    acts, x, rows = random(11, 3).abs(), random(11, 13, seed=1), random(20, 13, seed=2)
    dense = torch.zeros(11, 20).scatter(1, latents, acts)
    at = meetings(latents, 20)
    by_latent = acts.flatten()[at.order]

    assert at.latents.tolist() == sorted(latents.flatten().tolist())
    torch.testing.assert_close(dots(at, rows, x), (x @ rows.T)[at.tokens, at.latents])
    torch.testing.assert_close(sums(at, by_latent, x), dense.T @ x)
    torch.testing.assert_close(totals(at, by_latent), dense.sum(0))
    torch.testing.assert_close(mix(latents, acts, rows), dense @ rows)


@pytest.mark.parametrize("has_onednn", [True, False])
def test_the_dense_product_is_the_same_without_onednn(
    has_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "HAS_ONEDNN", has_onednn and products.HAS_ONEDNN)
    x, rows, bias = random(5, 9), random(9, 14).t(), random(14)
    expected = x.double() @ rows.double().T + bias.double()
    torch.testing.assert_close(product(x, rows, bias).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_dead", [0, 3, K_AUX, 20, 60, N_LATENTS])
@pytest.mark.parametrize("selection", ["float32", "bfloat16"])
def test_steps_equal_the_plain_ones_with_any_number_of_dead_latents(
    n_dead: int, selection: Selection
) -> None:
    """None, fewer than AuxK takes, just as many, a dense block, a sparse one, and all."""
    fast = require_equal_steps(untrained(), n_dead=n_dead, selection=selection)
    assert (fast.aux > 0) == (n_dead > 0)


@pytest.mark.parametrize("selection", ["float32", "bfloat16"])
def test_steps_equal_the_plain_ones_on_a_wide_dictionary(selection: Selection) -> None:
    """Wide enough for groups: 2,999 is no multiple of their size."""
    model = untrained(d=37, n_latents=2999, k=11)
    require_equal_steps(
        model,
        lambda step: random(70, 37, seed=step),
        n_dead=500,
        selection=selection,
        ks=(11, 11, 11),
    )


def test_steps_equal_the_plain_ones_where_the_batch_is_encoded_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "sae.training.engines.sparse.encode.AT_ONCE", 16 * N_LATENTS
    )  # 50 = 16 + 16 + 16 + 2
    require_equal_steps(untrained())


def test_steps_equal_the_plain_ones_while_k_changes() -> None:
    fast = require_equal_steps(untrained(), ks=(30, 20, 7, 1), n_dead=20)
    assert fast.l0 == 1


def test_k_may_exceed_the_number_of_latents() -> None:
    model = untrained(n_latents=12, k=12)
    require_equal_steps(model, ks=(99,))


def test_duplicate_tokens_count_twice() -> None:
    """The same rows of data again, so that latents meet them in one sum."""
    require_equal_steps(untrained(), lambda step: fresh(step)[:20].repeat(3, 1), n_dead=20)


def test_equal_latents_give_equal_figures() -> None:
    """Twins tie exactly: which of them is kept is free, so only the loss must be the same."""
    model = untrained()
    with torch.no_grad():
        for name in ("W_enc", "b_enc", "W_dec"):
            rows = getattr(model, name)
            rows[100:200] = rows[:100]
    slow = PlainEngine(copy.deepcopy(model), Objective(k_aux=K_AUX))
    fast = SparseEngine(model, Objective(k_aux=K_AUX), selection="float32")
    ours, theirs = (
        engine.step(fresh(0), k=K, lr=LR, dead=dead_latents(0)) for engine in (fast, slow)
    )
    torch.testing.assert_close((ours.loss, ours.l0), (theirs.loss, theirs.l0))


@pytest.mark.parametrize("n_dead", [20, 60])
def test_residuals_of_next_to_no_variance_stop_at_auxks_floor(n_dead: int) -> None:
    fast = require_equal_steps(untrained(), lambda step: 1e-3 * fresh(step), n_dead=n_dead)
    assert 0 < fast.aux < 1e6


def test_latents_that_never_fire_keep_their_rows() -> None:
    model = untrained()
    with torch.no_grad():
        model.b_enc[50:] = -100.0
    before = model.W_dec.detach().clone()
    fast = require_equal_steps(model)
    assert not fast.fired[50:].any()
    torch.testing.assert_close(model.W_dec[50:], before[50:], rtol=0, atol=1e-6)
    assert not torch.allclose(model.W_dec[:50], before[:50], atol=1e-4)


def test_a_batch_in_which_nothing_fires_is_no_accident() -> None:
    model = untrained()
    with torch.no_grad():
        model.b_enc.fill_(-100.0)
    fast = require_equal_steps(model)
    assert fast.l0 == 0
    assert not fast.fired.any()


def test_a_batch_of_one_token_has_no_variance_and_both_engines_say_so() -> None:
    engines = [PlainEngine(untrained(), Objective(k_aux=1))]
    engines += [SparseEngine(untrained(), Objective(k_aux=1), selection="float32")]  # type: ignore[list-item]
    losses = [e.step(random(1, D), k=K, lr=LR, dead=dead_latents(0)).loss for e in engines]
    assert [float(loss) for loss in losses] == [torch.inf, torch.inf]


@pytest.mark.parametrize("n_dead", [5, 20, 60])
def test_auxk_by_hand_equals_autograd_in_double_precision(n_dead: int) -> None:
    """5 and 20 take the dense block, 60 the pairs; 5 are fewer than AuxK wants."""
    x, error = random(30, D).double(), random(30, D, seed=5).double()
    W_enc, b_enc, W_dec = (
        random(*shape, seed=seed).double().requires_grad_()
        for seed, shape in enumerate([(n_dead, D), (n_dead,), (n_dead, D)])
    )
    b_enc.data -= 10  # some of the chosen are below 0, where the ReLU leaks
    variance = floor_variance(variance_of(error), 30, D)
    pre = F.linear(x, W_enc, b_enc)
    chosen = pre.topk(min(K_AUX, n_dead), dim=1).values
    assert 0 < (chosen > 0).sum() < chosen.numel()
    loss = auxk_loss(-error, pre, W_dec, torch.ones(n_dead, dtype=torch.bool), K_AUX)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        found = revival(Rows(W_enc, b_enc, W_dec), x, error, K_AUX, variance)
    tight: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(found.loss, loss.detach(), **tight)
    expected = Rows(*(value.grad for value in (W_enc, b_enc, W_dec)))  # type: ignore[arg-type]
    torch.testing.assert_close(found.gradients, expected, **tight)
    torch.testing.assert_close(found.along, (expected.W_dec * W_dec.detach()).sum(1), **tight)
    assert (expected.W_enc.abs().sum(1) > 0).any()


@pytest.mark.parametrize("n_dead", [0, 60])
def test_batch_topk_steps_equal_the_plain_ones_and_learn_the_threshold(n_dead: int) -> None:
    model, twin = untrained(activation="batch_topk"), untrained(activation="batch_topk")
    objective, dead = Objective(k_aux=K_AUX), dead_latents(n_dead)
    fast, slow = SparseEngine(model, objective), PlainEngine(twin, objective)
    for step in range(3):
        ours, theirs = (e.step(fresh(step), k=K, lr=LR, dead=dead) for e in (fast, slow))
        assert_same_result(ours, theirs)
    require_close(fast, slow)
    assert model.threshold > 0
    torch.testing.assert_close(model.threshold, twin.threshold)


def test_batch_topk_keeps_all_that_tie_at_the_border() -> None:
    rule = BatchTopK(2, torch.zeros(()))
    pre = torch.tensor([[4.0, 2.0, 2.0, 0.0], [1.0, 2.0, -3.0, 0.0], [2.0, -1.0, 0.0, 0.0]])
    kept, border = strongest_of_batch(pre, torch.eye(4), torch.zeros(4), 1, rule, None)
    assert border == 2
    dense = torch.zeros(3, 4).scatter_add(1, kept.latents, kept.acts)
    assert dense.tolist() == rule.train(pre, 1).tolist()  # type: ignore[union-attr]
    assert dense.tolist() == [[4, 2, 2, 0], [0, 2, 0, 0], [2, 0, 0, 0]]


def test_batch_topk_with_fewer_activations_than_places_keeps_them_all() -> None:
    rule = BatchTopK(2, torch.zeros(()))
    pre = torch.tensor([[1.0, -2.0, -3.0], [-1.0, 3.0, -4.0]])
    kept, border = strongest_of_batch(pre, torch.eye(3), torch.zeros(3), 2, rule, None)
    assert border == 0
    dense = torch.zeros(2, 3).scatter_add(1, kept.latents, kept.acts)
    assert dense.tolist() == [[1, 0, 0], [0, 3, 0]]


def test_batch_topk_that_keeps_everything_has_no_border() -> None:
    rule, pre = BatchTopK(2, torch.zeros(())), torch.ones(3, 2)
    kept, border = strongest_of_batch(pre, torch.eye(2), torch.zeros(2), 2, rule, None)
    assert border == rule.border(pre, 2) == 0
    assert kept.acts.tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("activation", ["topk", "batch_topk"])
@pytest.mark.parametrize("n_dead", [0, 20, 60])
def test_two_processes_on_parts_of_a_batch_step_as_one_does_on_all(
    activation: str, n_dead: int
) -> None:
    objective, whole, dead = Objective(k_aux=K_AUX), fresh(0), dead_latents(n_dead)
    one = SparseEngine(untrained(activation=activation), objective)
    expected = one.step(whole, k=K, lr=LR, dead=dead)
    parts = whole[:49], whole[49:]  # the second holds one token

    def take_part(rank: int, reduce: Reduce) -> tuple[SparseEngine, StepResult]:
        engine = SparseEngine(untrained(activation=activation), objective, reduce=reduce)
        return engine, engine.step(parts[rank], k=K, lr=LR, dead=dead)

    for engine, result in together(2, take_part):
        assert_same_result(result, expected)
        require_close(engine, one)


def test_a_restored_engine_goes_on_bit_for_bit() -> None:
    dead = dead_latents(20)
    unbroken = SparseEngine(untrained(), Objective(k_aux=K_AUX))
    for step in range(2):
        unbroken.step(fresh(step), k=K, lr=LR, dead=dead)
    again = SparseEngine(copy.deepcopy(unbroken.model), Objective(k_aux=K_AUX))
    again.restore(unbroken.state())
    for step in range(2, 4):
        for engine in (unbroken, again):
            engine.step(fresh(step), k=K, lr=LR, dead=dead)
    assert_same_weights(again.model, unbroken.model, tolerance=0.0)
    assert all(torch.equal(again.state()[name], v) for name, v in unbroken.state().items())


def test_the_state_is_a_copy() -> None:
    engine = SparseEngine(untrained(), Objective(k_aux=K_AUX))
    engine.step(fresh(0), k=K, lr=LR, dead=dead_latents(0))
    before = engine.state()
    kept = {name: value.clone() for name, value in before.items()}
    engine.step(fresh(1), k=K, lr=LR, dead=dead_latents(0))
    assert all(torch.equal(before[name], value) for name, value in kept.items())
    assert not torch.equal(engine.state()["W_enc.exp_avg"], kept["W_enc.exp_avg"])
