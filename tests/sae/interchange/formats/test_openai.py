"""openai/sparse_autoencoder: the maths of its model.py, stated once more here."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae import interchange
from sae.core.errors import USAGE, UserError
from tests.support.sae.peer_fixtures import require_same

D, N, K = 8, 24, 3


def _state(**more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "pre_bias": torch.randn(D),
        "latent_bias": torch.randn(N),
        "stats_last_nonzero": torch.zeros(N, dtype=torch.long),
        "latents_activation_frequency": torch.ones(N),
        "latents_mean_square": torch.zeros(N),
        "encoder.weight": torch.randn(N, D),
        "decoder.weight": torch.randn(D, N),
        **more,
    }


def _topk(after: str = "ReLU", **more: Any) -> dict[str, Any]:
    told = OrderedDict(k=K, postact_fn=after)
    return _state(activation="TopK", activation_state_dict=told, **more)


def _latents(state: dict[str, Any], x: Tensor, k: int = 0, relu: bool = True) -> Tensor:
    pre = (x - state["pre_bias"]) @ state["encoder.weight"].T + state["latent_bias"]
    if not k:
        return pre.relu()
    values, at = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, at, values.relu() if relu else values)


def _normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row without its mean and over its deviation, with both."""
    mu = x.mean(1, keepdim=True)
    std = (x - mu).std(1, keepdim=True)
    return (x - mu) / (std + 1e-5), mu, std


def _read(tmp_path: Path, state: dict[str, Any]) -> interchange.Imported:
    torch.save(OrderedDict(state), tmp_path / "6.pt")
    return interchange.read(tmp_path / "6.pt")


@pytest.mark.parametrize("told", [{"activation": "ReLU", "activation_state_dict": {}}, {}])
def test_relu_takes_embeddings_as_they_are(tmp_path: Path, told: dict[str, Any]) -> None:
    state, x = _state(**told), torch.randn(50, D)
    imported = _read(tmp_path, state)
    assert imported.format == "openai ReLU"
    assert bool(imported.notes) == (not told)
    latents = _latents(state, x)
    x_hat = latents @ state["decoder.weight"].T + state["pre_bias"]
    require_same(imported.model, x, latents, x_hat)


@pytest.mark.parametrize("after", ["ReLU", "Identity"])
def test_topk_normalises_each_row_and_puts_it_back(tmp_path: Path, after: str) -> None:
    state, x = _topk(after, latent_bias=torch.full((N,), -6.0)), 3 * torch.randn(50, D) + 5
    imported = _read(tmp_path, state)
    rows, mu, std = _normalised(x)
    latents = _latents(state, rows, K, relu=after == "ReLU")
    x_hat = (latents @ state["decoder.weight"].T + state["pre_bias"]) * std + mu
    require_same(imported.model, x, latents, x_hat)
    assert (latents < 0).any() == (after == "Identity")


def test_topk_written_by_nested_modules_has_the_same_k(tmp_path: Path) -> None:
    flat = {"activation": "TopK", "activation.k": K, "activation.postact_fn": "ReLU"}
    state, x = _state(**flat), torch.randn(50, D)
    require_same(_read(tmp_path, state).model, x, _latents(state, _normalised(x)[0], K))


@pytest.mark.parametrize("written", [True, False])
def test_a_tied_decoder_is_the_encoder(tmp_path: Path, written: bool) -> None:
    state, x = _state(activation="ReLU"), torch.randn(50, D)
    del state["decoder.weight"]
    if written:
        state["decoder.linear.weight"] = state["encoder.weight"]
    latents = _latents(state, x)
    x_hat = latents @ state["encoder.weight"] + state["pre_bias"]
    require_same(_read(tmp_path, state).model, x, latents, x_hat)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (_state(activation="Identity"), "activation 'Identity' has no counterpart"),
        (_topk("GELU"), "'GELU' after the top k"),
        (_state(activation="TopK"), "k is None"),
        (_state(latent_bias=torch.zeros(N - 1)), r"b_enc has shape \(23,\)"),
    ],
)
def test_what_cannot_be_right_is_refused(
    tmp_path: Path, state: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        _read(tmp_path, state)
    assert refusal.value.exit_code == USAGE
