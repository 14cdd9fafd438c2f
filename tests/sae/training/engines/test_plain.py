"""A step of the plain engine, and what it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.model.init import start
from sae.model.sae import SAE, SAEConfig
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import Objective, Reduce
from sae.training.engines.losses import (
    variance_of,
)
from sae.training.engines.objective import costs_of
from sae.training.engines.plain import PlainEngine
from sae.training.engines.update import Update
from tests.support.sae.gradients import together
from tests.support.sae.plain_steps import (
    NO_DRAWS,
    NONE_DEAD,
    PLAIN,
    SOME_DEAD,
    VARIANTS,
    K,
    L,
    N,
    model_of,
)
from tests.support.sae.stores import oracle


def test_a_step_is_adam_on_the_gradient_without_its_part_along_the_decoder(x: Tensor) -> None:
    model, twin = model_of("jumprelu"), model_of("jumprelu")
    objective = replace(PLAIN, l0=0.01)
    engine = PlainEngine(model, objective)
    parameters = dict(twin.named_parameters())
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in parameters.items()}
    for step in range(1, 4):
        result = engine.step(x, k=0, lr=0.01 * step, dead=SOME_DEAD)
        costs = costs_of(twin, objective, x, 0, SOME_DEAD, NO_DRAWS)
        gradients = torch.autograd.grad(costs.loss, list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                if name == "W_dec":
                    gradient = gradient - (gradient * value).sum(1, keepdim=True) * value
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.999).add_(0.001 * gradient.square())
                size = (second / (1 - 0.999**step)).sqrt() + 6.25e-10
                value.sub_(0.01 * step * first / (1 - 0.9**step) / size)
            twin.W_dec.div_(twin.W_dec.norm(dim=1, keepdim=True))
        for name, value in model.named_parameters():
            torch.testing.assert_close(value, parameters[name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(result.loss, costs.loss)


def test_a_step_reports_what_it_saw_before_its_update(x: Tensor) -> None:
    model = model_of("signed_topk")
    model.b_enc.data -= 3
    codes = model.sparsity.keep(model.pre_of_centred(x))
    assert (codes.acts < 0).any()
    result = PlainEngine(model, PLAIN).step(x, k=K, lr=0.1, dead=NONE_DEAD)
    fired = torch.zeros(L, dtype=torch.bool)
    fired[codes.latents.flatten()] = True
    assert torch.equal(result.fired, fired)
    assert result.l0 == K
    assert not result.loss.requires_grad


def test_how_often_a_latent_fired_counts_what_is_above_0_alone(x: Tensor) -> None:
    model, seen = model_of("signed_topk"), []
    model.b_enc.data -= 3
    acts = model.sparsity.keep(model.pre_of_centred(x)).dense(L)

    def judge(n_positive: Tensor) -> Tensor:
        seen.append(n_positive)
        return n_positive < 2

    result = PlainEngine(model, PLAIN).step(x, k=K, lr=0.1, dead=judge)
    assert (acts < 0).any()
    assert torch.equal(seen[0], (acts > 0).double().sum(0))
    assert result.n_positive is seen[0]


def test_k_of_the_step_decides_in_training(x: Tensor) -> None:
    for activation in ("topk", "batch_topk"):
        result = PlainEngine(model_of(activation), PLAIN).step(x, k=1, lr=0.0, dead=NONE_DEAD)
        assert result.l0 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_restored_engine_continues_bit_for_bit(name: str, x: Tensor) -> None:
    activation, objective = VARIANTS[name]
    objective = replace(objective, dropout=0.2)
    model, other = model_of(activation), model_of(activation)
    engine = PlainEngine(model, objective, seed=5)
    for _ in range(3):
        engine.step(x, k=K, lr=0.01, dead=SOME_DEAD)
    state = engine.state()
    other.load_state_dict(model.state_dict())
    for _ in range(2):
        engine.step(x, k=K, lr=0.01, dead=SOME_DEAD)
    again = PlainEngine(other, objective, seed=5)
    again.restore(state)
    for _ in range(2):
        again.step(x, k=K, lr=0.01, dead=SOME_DEAD)
    for mine, theirs in (
        (model.state_dict(), other.state_dict()),
        (engine.state(), again.state()),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", VARIANTS)
def test_processes_that_share_a_batch_step_as_one(name: str, x: Tensor) -> None:
    """Three unequal parts; the batch's mean differs from each part's."""
    activation, objective = VARIANTS[name]
    x = x + torch.linspace(-1, 1, N, dtype=torch.float64).unsqueeze(1)
    model = model_of(activation)
    alone = PlainEngine(model, objective)
    results = [alone.step(x, k=K, lr=0.01, dead=SOME_DEAD) for _ in range(3)]
    parts = [x[:4], x[4:15], x[15:]]

    def work(rank: int, reduce: Reduce) -> tuple[SAE, list[Tensor]]:
        mine = model_of(activation)
        engine = PlainEngine(mine, objective, reduce=reduce)
        steps = [engine.step(parts[rank], k=K, lr=0.01, dead=SOME_DEAD) for _ in range(3)]
        return mine, [torch.stack([*s[:4], s.fired.sum().double()]) for s in steps]

    for other, figures in together(3, work):
        for key, value in other.state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-7, atol=1e-9)
        for result, found in zip(results, figures, strict=True):
            wanted = torch.stack([*result[:4], result.fired.sum().double()])
            torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_processes_clip_decay_and_judge_the_dead_as_one(x: Tensor) -> None:
    objective = replace(PLAIN, ghost="ttt", dead_below=0.2, loss="mse", cls_weight=3.0)
    update = Update(decoder="at_use", grad_clip=0.05, weight_decay=0.1, beta1=0.8, eps=1e-4)
    is_cls = torch.arange(N) % 5 == 0
    model = model_of("signed_topk")
    alone = PlainEngine(model, objective, update=update)

    def judge(n_positive: Tensor) -> Tensor:
        return n_positive / N < 0.2

    nobody = torch.zeros(model.n_latents, dtype=torch.bool)
    for _ in range(3):
        alone.step(x, k=K, lr=0.01, dead=nobody, judge=judge, is_cls=is_cls)

    def work(rank: int, reduce: Reduce) -> SAE:
        mine, part = model_of("signed_topk"), slice(*((0, 4), (4, 15), (15, N))[rank])
        engine = PlainEngine(mine, objective, reduce=reduce, update=update)
        for _ in range(3):
            engine.step(x[part], k=K, lr=0.01, dead=nobody, judge=judge, is_cls=is_cls[part])
        return mine

    for other in together(3, work):
        for key, value in other.state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-7, atol=1e-9)


def trained(activation: str, objective: Objective, k: int = 4) -> tuple[SAE, Tensor]:
    """A model after 150 steps on planted data of two directions a token, and unseen tokens."""
    data, _ = oracle(3200, 32, 40, n_active=(1, 3))
    x, unseen = data[:3000], data[3000:]
    config = SAEConfig(d=32, n_latents=64, k=k, activation=activation)
    model = start(config, x)
    engine = engine_for(model, objective, "plain")
    generator = torch.Generator().manual_seed(0)
    silent = torch.zeros(64)
    for step in range(150):
        batch = x[torch.randint(len(x), (256,), generator=generator)]
        lr = 0.01 * min(1, (150 - step) / 50)
        result = engine.step(model.centre(batch), k=k, lr=lr, dead=silent > 5)
        silent = (silent + 1).masked_fill(result.fired, 0)
    return model.eval(), unseen


def unexplained(model: SAE, x: Tensor) -> float:
    with torch.no_grad():
        return float((x - model(x).x_hat).square().sum() / variance_of(x))


def test_a_trained_batch_topk_keeps_k_latents_on_average_by_its_threshold() -> None:
    model, unseen = trained("batch_topk", Objective(k_aux=16))
    assert model.threshold > 0
    n_active = (model.encode(unseen).acts > 0).sum(1).float()
    assert n_active.mean().item() == pytest.approx(4, abs=0.5)
    assert n_active.std() > 0.5
    assert unexplained(model, unseen) < 0.1


@pytest.mark.parametrize(
    ("activation", "weak", "strong"),
    [
        ("relu", Objective(k_aux=16, l1=1e-4), Objective(k_aux=16, l1=1e-2)),
        ("jumprelu", Objective(k_aux=16, l0=1e-4), Objective(k_aux=16, l0=1.0)),
    ],
)
def test_a_heavier_penalty_makes_sparser_codes(
    activation: str, weak: Objective, strong: Objective
) -> None:
    n_active = []
    for objective in (weak, strong):
        model, unseen = trained(activation, objective, k=0)
        n_active.append((model.encode(unseen).acts > 0).sum(1).float().mean().item())
    assert unexplained(model, unseen) < 1
    assert n_active[1] < 0.7 * n_active[0]


def test_a_small_prefix_explains_more_after_matryoshka_training() -> None:
    def of_prefix(objective: Objective) -> float:
        model, unseen = trained("topk", objective)
        x_hat = model.decode(model.encode(unseen, n_latents=8))
        return float(((unseen - x_hat).square().sum() / variance_of(unseen)).detach())

    assert of_prefix(Objective(k_aux=16, prefixes=(8, 64))) < 0.9 * of_prefix(Objective(k_aux=16))


@pytest.mark.parametrize(
    ("activation", "change", "words"),
    [
        ("relu", {"multi_k": 4}, "multi_k needs a rule with k; activation 'relu' has none"),
        ("topk", {"l0": 0.1}, "l0 needs activation 'jumprelu', not 'topk'"),
        ("topk", {"ghost": "casper"}, "ghost 'casper' is not known; known: 'ttt', 'patchsae'"),
        ("topk", {"prefixes": (2, 7)}, "must rise to n_latents 14"),
        ("topk", {"prefixes": (7, 2, L)}, "must rise to n_latents 14"),
        ("topk", {"prefixes": (L,), "n_random_prefixes": 3}, "fixed or random"),
    ],
)
def test_what_a_rule_cannot_do_is_refused(
    activation: str, change: dict[str, object], words: str
) -> None:
    objective = replace(PLAIN, **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words):
        engine_for(model_of(activation), objective, "plain")
