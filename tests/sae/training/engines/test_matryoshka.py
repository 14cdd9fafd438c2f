from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sae.model.sparsity import Codes, ReLU, TopK
from sae.training.engines.losses import fvu, variance_of
from sae.training.engines.matryoshka import decode_prefixes, nested_fvu, random_prefixes
from tests.support.sae.gradients import gradient_error

L, D = 9, 4
PREFIXES = (1, 2, 6, L)


@pytest.fixture
def pre() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(7, L, generator=generator, dtype=torch.float64)
    pre[2] = -1  # nothing fires
    pre[3, :6] = -9  # nothing in the first three prefixes
    return pre.requires_grad_()


@pytest.fixture
def W_dec() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(L, D, generator=generator, dtype=torch.float64).requires_grad_()


def kept_by(kind: str, pre: Tensor) -> Codes | Tensor:
    return TopK(3).train(pre, 3) if kind == "codes" else ReLU().train(pre)


@pytest.mark.parametrize("kind", ["codes", "acts"])
def test_each_prefix_rebuilds_with_its_own_latents_alone(
    kind: str, pre: Tensor, W_dec: Tensor
) -> None:
    kept = kept_by(kind, pre)
    dense = kept.dense(L) if isinstance(kept, Codes) else kept
    x_hats = decode_prefixes(kept, W_dec, PREFIXES)
    for place, size in enumerate(PREFIXES):
        torch.testing.assert_close(x_hats[:, place], dense[:, :size] @ W_dec[:size])


@pytest.mark.parametrize("kind", ["codes", "acts"])
def test_the_loss_is_the_mean_over_prefixes_with_the_gradient_of_finite_differences(
    kind: str, pre: Tensor, W_dec: Tensor
) -> None:
    x = torch.randn(7, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def loss() -> Tensor:
        return nested_fvu(x, decode_prefixes(kept_by(kind, pre), W_dec, PREFIXES), variance_of(x))

    x_hats = decode_prefixes(kept_by(kind, pre), W_dec, PREFIXES)
    each = [fvu(x, x_hats[:, place]) for place in range(len(PREFIXES))]
    torch.testing.assert_close(loss(), torch.stack(each).mean())
    assert gradient_error(loss, [pre, W_dec]) < 1e-6


def test_random_prefixes_rise_to_the_whole_dictionary_and_differ_from_draw_to_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [random_prefixes(64, 10, generator) for _ in range(20)]
    for sizes in draws:
        assert len(set(sizes)) == 10
        assert list(sizes) == sorted(sizes)
        assert sizes[0] >= 2
        assert sizes[-1] == 64
    assert len(set(draws)) > 15
    again = torch.Generator().manual_seed(0)
    assert random_prefixes(64, 10, again) == draws[0]


def test_small_prefixes_come_as_often_as_pareto_has_it() -> None:
    """P(size <= s) is (1 - s^-.5) / (1 - m^-.5) where m, the largest that is drawn, is 99."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([random_prefixes(100, 2, generator)[0] for _ in range(4000)])
    for size in (2, 4, 25, 64):
        wanted = (1 - size**-0.5) / (1 - 99**-0.5)
        assert (sizes <= size).double().mean().item() == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("n_latents", [1, 2, 3, 4])
def test_a_small_dictionary_has_as_many_prefixes_as_it_can(n_latents: int) -> None:
    sizes = random_prefixes(n_latents, 10, torch.Generator().manual_seed(0))
    assert sizes == {1: (1,), 2: (2,), 3: (2, 3), 4: (2, 3, 4)}[n_latents]
