from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sparsity import BatchTopK, Codes, JumpReLU, ReLU, Rule, TopK, codes_of
from tests.support.sae.gradients import gradient_error, together

PRE = torch.tensor([[0.5, -1.0, 3.0, 2.0], [-0.2, 0.4, -4.0, 0.3]])


def batch_topk(k: int, threshold: float = 0.0) -> BatchTopK:
    return BatchTopK(k, torch.tensor(threshold))


def jumprelu(*thresholds: float, bandwidth: float = 0.05) -> JumpReLU:
    return JumpReLU(torch.tensor(thresholds).log(), bandwidth)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_signed_topk_keeps_the_largest_values_whatever_their_sign() -> None:
    codes = TopK(3, signed=True).keep(PRE)
    assert codes.latents.tolist() == [[2, 3, 0], [1, 3, 0]]
    torch.testing.assert_close(codes.acts, torch.tensor([[3.0, 2.0, 0.5], [0.4, 0.3, -0.2]]))
    assert TopK(3).keep(PRE).acts[1].tolist() == pytest.approx([0.4, 0.3, 0])


def test_training_can_keep_another_number_of_latents_and_at_most_all() -> None:
    assert TopK(1).train(PRE, 2).latents.tolist() == [[2, 3], [1, 3]]
    assert TopK(1).train(PRE, 9).acts.shape == (2, 4)


def test_batch_topk_gives_the_busy_token_more_latents() -> None:
    kept = batch_topk(2).train(PRE, 2)
    wanted = torch.tensor([[0.5, 0.0, 3.0, 2.0], [0.0, 0.4, 0.0, 0.0]])
    assert torch.equal(kept, wanted)


def test_batch_topk_keeps_all_that_fires_where_less_does_and_equals_at_the_border() -> None:
    assert torch.equal(batch_topk(4).train(PRE, 4), PRE.relu())
    assert batch_topk(3).border(PRE, 3) == 0  # 5 of the 6 wanted are above 0
    equal = torch.tensor([[1.0, 2.0, 2.0], [2.0, 0.5, 2.0]])
    assert torch.equal(batch_topk(1).train(equal, 1), torch.where(equal == 2, equal, 0))


def test_the_finished_batch_topk_keeps_what_training_kept_of_its_only_batch() -> None:
    rule = batch_topk(2)
    rule.learn(rule.border(PRE, 2))
    assert rule.threshold == 0.4
    codes = rule.keep(PRE)
    assert codes.acts.shape == (2, 3)
    assert torch.equal(codes.dense(4), rule.train(PRE, 2))
    # Neighbours change nothing, unlike in training.
    assert torch.equal(rule.keep(PRE[1:]).dense(4), codes.dense(4)[1:])
    assert not torch.equal(rule.train(PRE[1:], 2), codes.dense(4)[1:])


def test_the_learned_threshold_is_a_running_mean_that_starts_at_the_first_border() -> None:
    rule = batch_topk(2)
    for border in (2.0, 3.0, 3.0):
        rule.learn(torch.tensor(border))
    assert rule.threshold.item() == pytest.approx(3 - 0.95**2)
    pre = torch.tensor([[1.0, 0.5], [-0.2, -0.3]])
    for nothing_learned in (0.0, -1.0):  # -1: as other programs write it
        assert torch.equal(batch_topk(2, nothing_learned).keep(pre).dense(2), pre.relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 3, 7, 20])
def test_processes_that_share_a_batch_find_the_border_of_the_whole(
    dtype: torch.dtype, k: int
) -> None:
    pre = drawn(12, 20).to(dtype)
    pre[3] = pre[4]  # ties across parts
    parts = [pre[:4], pre[4:5], pre[5:]]
    found = together(3, lambda rank, reduce: batch_topk(k).border(parts[rank], k, reduce))
    assert all(torch.equal(border, batch_topk(k).border(pre, k)) for border in found)


def test_jumprelu_keeps_unchanged_what_exceeds_its_own_threshold() -> None:
    rule = jumprelu(1.0, 0.1, 3.0, 0.2)
    wanted = torch.tensor([[0.0, 0.0, 0.0, 2.0], [0.0, 0.4, 0.0, 0.3]])
    assert torch.equal(rule.keep(PRE).dense(4), wanted)
    assert torch.equal(rule.train(PRE), wanted)
    assert rule.n_active(PRE).tolist() == [1, 2]


def test_jumprelu_slopes_are_those_of_the_paper() -> None:
    """d/dt of z H(z - t) is -(t / e) K((z - t) / e), of H -(1 / e) K; K is 1 within 1/2 of 0."""
    n, n_latents, width = 50, 6, 0.4
    pre = (2 * drawn(n, n_latents)).requires_grad_()
    log_threshold = drawn(n_latents, seed=1).mul(0.5).requires_grad_()
    rule = JumpReLU(log_threshold, width)
    weight, weight_of_token = drawn(n, n_latents, seed=2), drawn(n, seed=3)
    values = [pre, log_threshold]
    of_acts = torch.autograd.grad((weight * rule.train(pre)).sum(), values)
    (of_count,) = torch.autograd.grad((weight_of_token * rule.n_active(pre)).sum(), values[1:])

    wanted = [torch.zeros_like(pre), torch.zeros_like(log_threshold)]
    wanted_of_count = torch.zeros_like(log_threshold)
    n_near = 0
    for token in range(n):
        for latent in range(n_latents):
            z, log_t = pre[token, latent].item(), log_threshold[latent].item()
            t = math.exp(log_t)
            wanted[0][token, latent] = weight[token, latent] if z > t else 0.0
            if abs((z - t) / width) < 0.5:
                n_near += 1  # and d/dlog t = t d/dt
                wanted[1][latent] -= weight[token, latent] * t / width * t
                wanted_of_count[latent] -= weight_of_token[token] / width * t
    assert n_near > 10
    torch.testing.assert_close(of_acts[0], wanted[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(of_acts[1], wanted[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(of_count, wanted_of_count, rtol=1e-9, atol=1e-12)


def test_over_many_tokens_the_jumprelu_slope_is_that_of_the_mean() -> None:
    """Of tokens spread evenly over (0, 2) a share (2 - t) / 2 fires, the mean is (4 - t^2) / 4."""
    pre = ((torch.arange(20_000, dtype=torch.float64) + 0.5) / 10_000).unsqueeze(1)
    log_threshold = torch.tensor([0.7], dtype=torch.float64).log().requires_grad_()
    rule = JumpReLU(log_threshold, 0.1)
    for mean, by_t in ((rule.n_active(pre).mean(), -0.5), (rule.train(pre).mean(), -0.7 / 2)):
        (slope,) = torch.autograd.grad(mean, log_threshold)
        assert slope.item() == pytest.approx(0.7 * by_t, rel=1e-3)


def test_jumprelu_counting_gives_pre_activations_no_gradient() -> None:
    pre = drawn(9, 4).requires_grad_()
    rule = JumpReLU(torch.zeros(4, dtype=torch.float64, requires_grad=True))
    (gradient,) = torch.autograd.grad(rule.n_active(pre).sum(), pre, allow_unused=True)
    assert gradient is None or not gradient.any()


RULES: dict[str, Rule] = {
    "topk": TopK(3),
    "signed": TopK(3, signed=True),
    "batch_topk": batch_topk(3),
    "jumprelu": JumpReLU(torch.tensor([0.3] * 8, dtype=torch.float64).log()),
    "relu": ReLU(),
}


@pytest.mark.parametrize("name", RULES)
def test_gradients_of_what_is_kept_equal_finite_differences(name: str) -> None:
    pre, weight = drawn(5, 8).requires_grad_(), drawn(5, 8, seed=1)

    def loss() -> Tensor:
        kept = RULES[name].train(pre, 3)
        dense = kept.dense(8) if isinstance(kept, Codes) else kept
        return (weight * dense.square()).sum()

    assert gradient_error(loss, [pre]) < 1e-6


def test_relu_codes_are_as_wide_as_the_busiest_token_needs() -> None:
    codes = ReLU().keep(PRE)
    assert codes.acts.tolist() == [[3.0, 2.0, 0.5], pytest.approx([0.4, 0.3, 0.0])]
    assert torch.equal(codes.dense(4), PRE.relu())
    assert all(len(set(row)) == 3 for row in codes.latents.tolist())


def test_codes_have_a_column_even_where_nothing_fires_or_no_token_is() -> None:
    assert codes_of(torch.zeros(3, 5)).acts.tolist() == [[0.0]] * 3
    assert codes_of(torch.zeros(0, 5)).acts.shape == (0, 1)


def test_the_first_latents_of_codes_are_what_is_left_without_the_others() -> None:
    codes = Codes(torch.tensor([[5.0, 4.0, 2.0]]), torch.tensor([[6, 1, 2]]))
    first = codes.first(3)
    assert first.acts.tolist() == [[4.0, 2.0, 0.0]]
    assert first.latents.tolist() == [[1, 2, 6]]
    assert torch.equal(codes.first(7).acts, codes.acts)
    signed = Codes(torch.tensor([[5.0, -1.0, -4.0]]), torch.tensor([[6, 1, 2]]))
    assert signed.first(3).acts.tolist() == [[0.0, -1.0, -4.0]]


@pytest.mark.parametrize("rule", [TopK, batch_topk])
def test_a_rule_must_keep_something(rule: type[TopK]) -> None:
    with pytest.raises(UserError, match="k is 0; at least one"):
        rule(0)
