from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.model.init import start
from sae.model.sae import SAEConfig


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 5 + 0.01 * torch.randn(40, 6, generator=generator)


@pytest.mark.parametrize("init", ["tied", "data"])
def test_rows_have_unit_length_and_the_encoder_is_their_copy(x: Tensor, init: str) -> None:
    model = start(SAEConfig(d=6, n_latents=9, k=2, seed=3), x, init)
    torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(9))
    assert torch.equal(model.W_enc, model.W_dec)
    assert not model.b_enc.any()
    other = start(SAEConfig(d=6, n_latents=9, k=2, seed=4), x, init)
    assert not torch.equal(model.W_dec, other.W_dec)


def test_rows_that_begin_as_data_lie_near_different_points(x: Tensor) -> None:
    model = start(SAEConfig(d=6, n_latents=40, k=2), x, "data")
    points = torch.nn.functional.normalize(model.centre(x) - model.b_dec, dim=1)
    cosines = model.W_dec @ points.T  # (40, 40)
    # 0.8 of a point and 0.2 of noise: an angle of 14.5 degrees at most.
    assert cosines.amax(1).min() > 0.96
    assert sorted(cosines.argmax(1).tolist()) == list(range(40))


def test_more_rows_than_points_take_each_point_evenly(x: Tensor) -> None:
    model = start(SAEConfig(d=6, n_latents=20, k=2), x[:5], "data")
    points = torch.nn.functional.normalize(model.centre(x[:5]) - model.b_dec, dim=1)
    nearest = (model.W_dec @ points.T).argmax(1)
    assert torch.bincount(nearest).tolist() == [4] * 5
    assert len(model.W_dec.unique(dim=0)) == 20


def test_without_scaling_the_model_works_on_embeddings_as_they_are(x: Tensor) -> None:
    config = SAEConfig(d=6, n_latents=9, k=2)
    scaled, raw = start(config, x), start(config, x, scale_input=False)
    assert torch.equal(raw.centre(x), x)
    torch.testing.assert_close(raw.b_dec, scaled.b_dec * scaled.scale + scaled.mean)


@pytest.mark.parametrize(
    ("init", "bound", "tied", "median"),
    [
        ("ttt", (6 / 406) ** 0.5, True, False),
        ("sketch", (6 / 406) ** 0.5, False, False),
        ("patchsae", (6 / 400) ** 0.5, False, True),
        ("sparsify", 6**-0.5, True, True),
    ],
)
def test_another_labs_start_has_its_sizes(
    x: Tensor, init: str, bound: float, tied: bool, median: bool
) -> None:
    model = start(SAEConfig(d=6, n_latents=400, k=2), x, init, scale_input=False)
    assert 0.99 * bound < float(model.W_enc.detach().abs().max()) <= bound
    assert float(model.W_enc.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(400))
    cosine = torch.nn.functional.cosine_similarity(model.W_enc, model.W_dec, dim=1)
    assert bool((cosine > 0.999).all()) == tied
    assert bool(model.b_dec.any()) == median
    assert not model.b_enc.any()


def test_an_unknown_init_is_refused(x: Tensor) -> None:
    with pytest.raises(UserError, match="init 'pca' is not known; known: tied, data"):
        start(SAEConfig(d=6, n_latents=9, k=2), x, "pca")
