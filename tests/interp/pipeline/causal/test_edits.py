"""Edits of a latent in the network, computed again in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.pipeline.causal.edits import Network, pair_rows
from sae.clip.model import Halfway
from sae.model.sae import SAE, SAEConfig

N, T, D, LATENTS = 5, 3, 8, 10


class MeanClip:
    """The rest of a network that takes the mean of its tokens."""

    def tokens_at(self, halfway: Halfway, tokens: str) -> Tensor:
        return halfway.row

    def finish(self, halfway: Halfway, tokens: str, x: Tensor | None = None) -> Tensor:
        return F.normalize((halfway.row if x is None else x).mean(1), dim=-1)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    model = SAE(SAEConfig(d=D, n_latents=LATENTS, k=3))
    with torch.no_grad():
        model.W_dec.copy_(torch.randn(LATENTS, D) * torch.linspace(0.5, 3, LATENTS)[:, None])
        model.W_enc.copy_(torch.randn_like(model.W_enc))
        model.mean.copy_(torch.randn(D))
        model.scale.fill_(2.5)
    clip: Any = MeanClip()
    texts = F.normalize(torch.randn(4, D), dim=-1)
    return Network(model.eval(), clip, "all", texts, np.array([1.0, 0.5, 2.0, 0.1]))


def similarity(network: Network, x: Any) -> Any:
    pooled = x.mean(1)
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return unit @ network.texts.numpy().T / network.spread


def test_an_edit_adds_the_latents_direction_and_keeps_the_sae_error(network: Network) -> None:
    x = torch.randn(N, T, D)
    halfway = Halfway("2", x, torch.empty(0))
    amounts = torch.rand(N, T)
    found = network.change(halfway, [4, 7], amounts)
    directions = network.model.W_dec.detach().numpy() * 2.5  # the scale multiplies activations
    before = similarity(network, x.numpy())
    for place, latent in enumerate((4, 7)):
        equal = np.linalg.norm(directions[4]) / np.linalg.norm(directions[latent])
        moved = x.numpy() + amounts.numpy()[..., None] * equal * directions[latent]
        expected = similarity(network, moved) - before
        assert found[place] == pytest.approx(expected, abs=1e-4)


def test_activations_taken_out_leave_the_tokens_without_the_latent_as_they_are(
    network: Network,
) -> None:
    x = torch.randn(N, T, D)
    halfway = Halfway("2", x, torch.empty(0))
    acts = network.activations(halfway, 4)
    dense = network.model.encode(x.flatten(0, 1)).dense(LATENTS)[:, 4].view(N, T)
    assert torch.equal(acts, dense)
    without = (acts == 0).all(1)
    assert 0 < without.sum() < N
    change = network.change(halfway, [4], -acts)[0]
    assert not change[without.numpy()].any()
    assert change[~without.numpy()].any()


def test_images_without_it_get_the_activations_of_those_with_it_in_turn() -> None:
    amounts = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert pair_rows(amounts, 5).tolist() == [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]]
